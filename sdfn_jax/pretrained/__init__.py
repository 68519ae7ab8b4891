"""Weights of published networks, one file per source; a file loads whole or is refused with the reason."""
