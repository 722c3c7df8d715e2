"""Numbers being kept: histograms, clocks, the task probe and its native twin. Knows nothing of OpenTelemetry."""
