"""How much memory a model needs, and what of it fits these devices."""
