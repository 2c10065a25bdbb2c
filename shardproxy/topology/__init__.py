"""PURE. Where a row lives: keys, maps, rings, tables, servers, and the epoch-numbered snapshot that holds them all."""
