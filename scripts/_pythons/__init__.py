"""What `scripts/pythons` is made of: a Debian root (`root.py`) and how it is filled (`suite.py`)."""
