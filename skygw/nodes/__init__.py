"""Node sockets: one session each, replies matched to calls, and who is connected now."""
