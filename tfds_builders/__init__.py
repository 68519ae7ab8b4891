"""Data sets in TFDS's folder convention, prepared from the user's own download and without TensorFlow."""
