"""What trio has of its own: tasks, loops, threads, locks."""
