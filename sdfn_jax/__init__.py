"""SDFN (Liu et al. 2018) in JAX: 14 thoracic findings from the entire radiograph and its lung region."""
