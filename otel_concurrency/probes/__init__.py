"""Numbers being kept: histograms, the task probe and its native twin. Knows nothing of OpenTelemetry."""
