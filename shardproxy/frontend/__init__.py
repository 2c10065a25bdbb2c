"""I/O towards clients: listeners, client connections, and the pipeline of each protocol."""
