"""The report: sections of tables and figures, made from the files of evaluated runs; no JAX."""
