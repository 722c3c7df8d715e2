"""What a process did over some seconds, from snapshots one after the other, as a trace for Perfetto."""
