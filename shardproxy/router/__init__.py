"""PURE. A plan and the values at hand, against one map snapshot, give the shards."""
