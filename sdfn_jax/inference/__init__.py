"""Trained networks at work on films of any source: readings, pages, the viewer, export."""
