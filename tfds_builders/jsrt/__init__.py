"""JSRT radiographs with the lung masks of SCR."""
