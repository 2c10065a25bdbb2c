"""PURE. Answers of several shards into one."""
