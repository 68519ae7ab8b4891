"""The report: sections of tables and figures, made of what runs left behind; no JAX."""
