"""The doors: Quart and ASGI live here and nowhere else."""
