"""What is done with FITS files, in a process of its own that can do nothing else; nothing here knows of the gateway."""
