"""The lung region generator (B.2): radiographs -> lung masks -> lung boxes -> the box table."""
