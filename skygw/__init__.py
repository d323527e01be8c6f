"""The SkyNode gateway."""
