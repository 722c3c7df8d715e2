"""`opentelemetry-instrument python -m otel_concurrency.doctor`: the report of this process, as JSON."""

from __future__ import annotations

import json
import sys

from otel_concurrency.doctor.examining import examine


def main() -> None:
    """Write it to standard output."""
    sys.stdout.write(json.dumps(examine().to_data()) + "\n")


if __name__ == "__main__":
    main()
