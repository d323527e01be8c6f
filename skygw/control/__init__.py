"""A caller's request becomes a round trip, or a command, on a node's socket."""
