"""Radiographs as files and arrays, their findings and tables, and synthetic ones. No JAX."""
