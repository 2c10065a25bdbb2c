"""What the benches stand on: servers with data, the proxies to compare, load, and readings of processes."""
