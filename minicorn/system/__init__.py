"""One fact of the operating system each; nothing here knows a worker from an arbiter."""
