"""Where requests wait for a connection: databases, Redis, HTTP clients."""
