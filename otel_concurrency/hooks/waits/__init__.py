"""Where tasks wait for each other: locks and queues of asyncio and AnyIO."""
