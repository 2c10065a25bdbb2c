"""The Redis protocol, RESP2 and RESP3, sans I/O: commands of clients, replies of nodes, and our own words (encode)."""
