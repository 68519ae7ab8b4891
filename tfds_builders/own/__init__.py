"""Anybody's radiographs, with findings of their own in a table."""
