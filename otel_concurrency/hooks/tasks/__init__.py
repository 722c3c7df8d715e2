"""asyncio's tasks: made, cancelled, created by whom."""
