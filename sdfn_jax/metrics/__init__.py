"""Numbers from labels and probabilities: AUCs, intervals, tests, calibration, operating points. No JAX."""
