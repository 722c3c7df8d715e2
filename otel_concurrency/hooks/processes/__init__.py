"""Processes: pools of them, children, programs that are started."""
