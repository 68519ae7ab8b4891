"""Montgomery County radiographs with lung masks."""
