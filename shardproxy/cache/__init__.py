"""Rows and results of MySQL, kept on Redis nodes. The protocol is in docs/cache.md, its model in models/cache.pml."""
