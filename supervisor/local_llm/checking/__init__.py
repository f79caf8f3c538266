"""`local-llm check`: what is known of a model before it is started, and one start on trial."""
