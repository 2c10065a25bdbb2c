"""I/O towards the servers: connections, pools, health, the catalog."""
