"""The end of the process, and signals that bring it."""
