"""Who is calling and what they may do: tokens, keys, principals and networks."""
