"""The keeper of the cache: reads the shards' binlogs and invalidates what they change. A process of its own."""
