"""The conversations of hub services, over memory links."""
