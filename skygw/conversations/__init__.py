"""What hub services say on their sockets, and what they are answered: one session for all, a conversation for each."""
