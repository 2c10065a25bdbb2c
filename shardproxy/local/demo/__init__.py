"""`./dev demo`: a local cluster with sample data, the proxy before it, and a tour of what the proxy does.

python -m shardproxy.local.demo [--once]
"""
