"""What an installation reports over HTTP: hardware, tasks, assets, uploads."""
