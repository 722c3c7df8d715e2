"""The real backend for tests: built from source once, started and stopped on request.

Standard library only; `scripts/stack` is the command, `tests/stack/conftest.py` the other caller.

- `pins` which versions, and what each program is built from
- `paths` where the cache, the binaries and a running stack's state are
- `build` from the Go module proxy to binaries
- `programs` how each program is started and what makes it ready
- `process` one child process: identity, log, end
- `stack` up, down, status
"""
