"""What `/api/…` and `shardctl` show: one file a command, each a pure function from values to JSON-able dicts."""
