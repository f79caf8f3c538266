"""What runs in, or right beside, a worker process. Never imports the supervisor."""
