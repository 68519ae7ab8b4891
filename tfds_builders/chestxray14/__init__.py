"""NIH ChestX-ray14, each image entire and as its lung region."""
