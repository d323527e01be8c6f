"""What nodes publish."""
