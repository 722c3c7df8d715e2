"""The state file: what runs where, written before anything is waited for."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from otel_concurrency.stack.errors import StackError
from otel_concurrency.stack.process import Identity, Process

STATE_FILE = "state.json"
STATE_VERSION = 2


@dataclass(frozen=True, slots=True)
class State:
    """A started stack.

    Attributes:
        folder: Holds the state file, the logs and the programs' data.
        endpoints: Addresses by name: `otlp_grpc`, `otlp_http`, `jaeger`, `jaeger_otlp`,
            `prometheus`, `loki`.
        ready_urls: For each program, what answers 200 while it is ready.
        processes: In the order they were started.
        owner: Process that the stack belongs to, or `None` if it is to outlive the command.
    """

    folder: Path
    endpoints: dict[str, str]
    ready_urls: dict[str, tuple[str, ...]]
    processes: tuple[Process, ...] = ()
    owner: Identity | None = None

    def with_process(self, process: Process) -> State:
        """Return the state after one more start."""
        return replace(self, processes=(*self.processes, process))

    def log(self, name: str) -> Path:
        """Return the log of a program."""
        return self.folder / f"{name}.log"

    def exports(self) -> dict[str, str]:
        """Return the variables that point a service at the collector and a person at the rest."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoints["otlp_http"],
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "STACK_OTLP_GRPC": self.endpoints["otlp_grpc"],
            "STACK_OTLP_HTTP": self.endpoints["otlp_http"],
            "STACK_JAEGER": self.endpoints["jaeger"],
            "STACK_PROMETHEUS": self.endpoints["prometheus"],
            "STACK_LOKI": self.endpoints["loki"],
        }

    def write(self) -> None:
        """Replace the state file in one step."""
        body = {
            "version": STATE_VERSION,
            "endpoints": self.endpoints,
            "ready_urls": self.ready_urls,
            "processes": [process.to_json() for process in self.processes],
            "owner": None if self.owner is None else {"pid": self.owner.pid, "started": self.owner.started},
        }
        arriving = self.folder / f"{STATE_FILE}.arriving"
        arriving.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
        os.replace(arriving, self.folder / STATE_FILE)

    def remove(self) -> None:
        """Forget the stack; logs stay."""
        (self.folder / STATE_FILE).unlink(missing_ok=True)


def read_state(folder: Path) -> State | None:
    """Read what `State.write` wrote, or return `None` if nothing was started from this folder.

    Raises:
        StackError: The file is not a state file; we then cannot know what we started.
    """
    file = folder / STATE_FILE
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        if body["version"] != STATE_VERSION:
            raise ValueError(f"version {body['version']}, not {STATE_VERSION}")
        owner = body["owner"]
        return State(
            folder=folder,
            endpoints={str(name): str(value) for name, value in body["endpoints"].items()},
            ready_urls={str(name): tuple(map(str, urls)) for name, urls in body["ready_urls"].items()},
            processes=tuple(Process.from_json(row) for row in body["processes"]),
            owner=None if owner is None else Identity(int(owner["pid"]), str(owner["started"])),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StackError(
            f"{file} cannot be read as a state file ({error!r}). If nothing of it runs any more, delete it."
        ) from error
