"""What OpenTelemetry hears: names, the metric producer and its sources, what log records carry."""
