"""Weights from other libraries: recognised, checked, converted."""
