"""What Python itself gave up on: noticed once, where it shows."""
