"""Who is served by which worker, and when that changes."""
