"""How hard the property tests try: enough to find, and never by the clock, because the machine may be busy."""

from hypothesis import HealthCheck, settings

settings.register_profile("no clock", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")
