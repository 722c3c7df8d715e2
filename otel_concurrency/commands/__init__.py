"""The commands of `otel-concurrency`, one file each.

A command is a module here with two functions: `add_to(commands)` adds its parser, and says with
`set_defaults(run=...)` what runs: a function of the parsed options and the `StopRequest`, that returns the
exit code. What a command needs beyond the standard library, it imports when it runs.
"""

from __future__ import annotations

NAMES = (
    "run",
    "console",
    "demo",
    "receive",
    "ps",
    "tree",
    "top",
    "diagnose",
    "record",
    "doctor",
    "stack",
)  # in the order in which the help lists them
