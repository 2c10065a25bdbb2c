"""Moving rows between shards while they are written. The protocol is that of DESIGN section 8."""
