"""Anybody's radiographs with lung masks."""
