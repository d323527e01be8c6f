"""What goes over a node socket, as values: frames, their text, close codes, lateness. No I/O, no clock, no loop."""
