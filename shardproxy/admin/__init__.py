"""I/O. What operators look at: metrics over all workers, the admin HTTP server, and the texts behind `shardctl`."""
