"""A local cluster of real servers (MariaDB, MySQL 9.x, Redis, etcd) for demo, tests and bench.

    with LocalCluster(flavor="mariadb", shards=2, replicas=1) as cluster:
        cluster.shards[0].primary.connect()

Everything listens on 127.0.0.1 only, lives in one folder per cluster, and is gone after `stop()`. A cluster whose owner
was killed is found and ended by the next one that starts.
"""

from shardproxy.errors import LocalError
from shardproxy.local.cluster import ConfigFile, LocalCluster, LocalShard
from shardproxy.local.etcd import LocalEtcd
from shardproxy.local.flavors import unavailable
from shardproxy.local.mysql_tree import ensure_tree, in_tree, inside
from shardproxy.local.ports import free_port
from shardproxy.local.process import Process
from shardproxy.local.records import clean_stale
from shardproxy.local.redis_node import RedisNode
from shardproxy.local.server import LocalServer

__all__ = [
    "ConfigFile",
    "LocalCluster",
    "LocalError",
    "LocalEtcd",
    "LocalServer",
    "LocalShard",
    "Process",
    "RedisNode",
    "clean_stale",
    "ensure_tree",
    "free_port",
    "in_tree",
    "inside",
    "unavailable",
]
