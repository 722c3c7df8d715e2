"""What watching costs: `python -m benchmarks` or `make bench`; see `docs/benchmarks.md`."""
