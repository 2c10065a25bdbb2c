"""The commands: `shardctl` (one file a subcommand) and `shardproxy`."""
