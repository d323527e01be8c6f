"""What installations observe, and bring: their tasks."""
