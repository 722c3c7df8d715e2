"""What is set up in this process, who decided it, and whether telemetry arrives: told from the inside."""
