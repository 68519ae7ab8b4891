"""The sections of the report, one subject a file; each is a function from the material to a `page.Section`."""
