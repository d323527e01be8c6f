"""Everything PostgreSQL: the pool, the SQL, the migrations, and a server of our own where there is none."""
