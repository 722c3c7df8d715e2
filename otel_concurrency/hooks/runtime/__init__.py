"""The interpreter itself: garbage collection, and what upstream measures of the system."""
