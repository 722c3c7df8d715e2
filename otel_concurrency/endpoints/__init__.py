"""HTTP in a thread of its own: is the program healthy and ready, its metrics, and what it does right now.

Off, and not even imported, until `OTEL_PYTHON_CONCURRENCY_HTTP_PORT` is set. `client.py` is the other end.
"""
