"""What an operator may see and do: status, events, load, unload, rescan."""
