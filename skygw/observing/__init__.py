"""What installations ask and report over HTTP: services, with ports to where it is kept."""
