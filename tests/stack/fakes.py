"""Stand-ins for the programs and for Go, so that the script is tested where neither is there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from otel_concurrency.stack.paths import binary_path
from otel_concurrency.stack.pins import RECIPES

# Serves every port it is given. FAKE_<NAME> chooses another fate: `exits`, `unready` or `stubborn`.
PROGRAM = """#!{python}
import http.server, os, signal, sys, threading

name = os.path.basename(sys.argv[0])
fate = os.environ.get("FAKE_" + name.upper(), "")
print(name, "says", fate or "hello", flush=True)
if fate == "exits":
    sys.exit("no component called surprise")
if fate == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if fate == "unready" else 200)
        self.end_headers()
    def log_message(self, *arguments):
        pass

prefix = {{"otelcol": "AGENT_", "jaeger": "JAEGER_", "loki": "LOKI_"}}.get(name, "nothing")
ports = [int(value) for key, value in os.environ.items() if key.startswith(prefix) and key.endswith("_PORT")]
ports += [int(one.rpartition(":")[2]) for one in sys.argv if one.startswith("--web.listen-address=")]
servers = [http.server.ThreadingHTTPServer(("127.0.0.1", port), Answer) for port in ports]
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
servers[0].serve_forever()
"""

# Knows the few subcommands that the build uses, and writes down each. FAKE_GO names a package not to compile.
GO = """#!{python}
import os, pathlib, sys

arguments = sys.argv[1:]
with open(os.environ["FAKE_GO_LOG"], "a") as log:
    print(*arguments, file=log)
if arguments == ["version"]:
    print("go version go{version} linux/amd64")
elif arguments[0] == "install":
    builder = pathlib.Path(os.environ["GOBIN"], "builder")
    builder.parent.mkdir(parents=True, exist_ok=True)
    builder.write_text("#!/bin/sh\\nmkdir -p otelcol\\n")
    builder.chmod(0o755)
elif arguments[:2] == ["mod", "download"]:
    pathlib.Path(os.environ["GOMODCACHE"], arguments[2]).mkdir(parents=True, exist_ok=True)
elif arguments[:2] == ["mod", "edit"]:
    pass
elif arguments[0] == "build":
    if arguments[-1] == os.environ.get("FAKE_GO"):
        sys.exit("undefined: surprise")
    compiled = pathlib.Path(arguments[arguments.index("-o") + 1])
    compiled.parent.mkdir(parents=True, exist_ok=True)
    compiled.write_text("compiled " + arguments[-1])
    compiled.chmod(0o755)
"""


def install_programs(stack: Path) -> None:
    """Put a stand-in wherever `up` looks for a binary."""
    for recipe in RECIPES:
        _write(binary_path(recipe, stack), PROGRAM.format(python=sys.executable))


def install_go(folder: Path, version: str) -> Path:
    """Put a stand-in for Go into a folder, which a test then has on PATH."""
    _write(folder / "go", GO.format(python=sys.executable, version=version))
    return folder


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    os.chmod(file, 0o755)
