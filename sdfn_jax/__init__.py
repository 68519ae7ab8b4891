"""SDFN (Liu et al. 2018) in JAX: 14 thoracic findings from the entire radiograph and its lung region."""

__version__ = "0.2.0"
