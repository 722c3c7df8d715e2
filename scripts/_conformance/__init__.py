"""What `scripts/conformance` is made of.

`child.py` runs one test module and writes what became of each test; `sides.py` knows the environments that
are held against each other; `compare.py` tells a difference from a flaky test; `report.py` prints.
`sanity.py` and `sink.py` prove that what is meant to be active is active.
"""
