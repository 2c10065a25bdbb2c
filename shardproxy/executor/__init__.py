"""I/O: runs a routed statement on the shards and brings its answer to the client."""
