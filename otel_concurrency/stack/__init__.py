"""The real backend without Docker: built from source once, started and stopped on request.

Standard library only: `scripts/stack` runs it on a Python that has nothing else. `otel-concurrency stack` is
the command, the tests' fixture the other caller.

- `pins` which versions, and what each program is built from
- `paths` where the cache, the binaries and a running stack's state are
- `build` from the Go module proxy to binaries
- `programs` how each program is started and what makes it ready
- `process` one child process: identity, log, end
- `stack` up, down, status
"""
