"""What `scripts/upstream-tests` is made of: upstream's sources, an environment without us, results."""
