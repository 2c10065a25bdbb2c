"""`shardctl rebalance plan`: what a move would take, and what stands in its way. Nothing is changed anywhere."""
