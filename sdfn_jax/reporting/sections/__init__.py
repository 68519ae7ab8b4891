"""The sections of the report, one subject per file; each is a function from the material to a `page.Section`."""
