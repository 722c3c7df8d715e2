"""Threads and their pools, AnyIO's among them."""
