"""A request in, bytes through: what it asks for, whether it may, and the data path."""
