"""What a SkyNode embeds (`node`, `blocking`) and what a hub service embeds (`caller`, `blocking`)."""
