"""Log records on their way to OpenTelemetry, and what exporters log."""
