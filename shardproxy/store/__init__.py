"""I/O. The map store: small JSON documents with versions, compare-and-set and watch; a file, or etcd."""
