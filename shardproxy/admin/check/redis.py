"""The Redis nodes of the file beside the map of the Redis port in the store."""

from __future__ import annotations

from collections.abc import Iterator

from shardproxy.admin.check.findings import Finding, error, warning
from shardproxy.config import Config
from shardproxy.config.redis_models import RedisSettings
from shardproxy.errors import StoreError
from shardproxy.store.opening import open_store
from shardproxy.topology.redis_map import REDIS_MAP, RedisMap, first_of, other_placement, spread


async def redis_findings(config: Config) -> list[Finding]:
    """Where they differ. Nothing without a Redis port, or before the first proxy has stored a map; and nothing about a
    store that cannot be read, which is `store_findings`' matter."""
    if config.redis is None:
        return []
    if config.store.kind == "embedded" and not config.resolve(config.store.path).exists():
        return []
    try:
        store = await open_store(config)
        try:
            entry = await store.get(REDIS_MAP)
        finally:
            await store.close()
        return [] if entry is None else differences(config, RedisMap.read(entry.key, entry.value))
    except StoreError:
        return []


def differences(config: Config, document: RedisMap) -> list[Finding]:
    """What the file says otherwise than the map."""
    r = config.redis
    assert r is not None
    if other := other_placement(document, r):
        return [error("redis.placement", f"proxies serve no Redis clients with this file: {other}", "as there")]
    found = [
        error(
            f"redis.nodes.{name}",
            f"the map store has keys on {name}, which the file does not name: proxies that start with this file serve "
            "no Redis clients",
            f"name {name} with its address; to be without it, `shardctl rebalance redis run` with the other nodes' "
            "weights first",
        )
        for name in sorted(document.nodes - r.nodes.keys())
    ]
    if not r.sentinels:  # they know better where nodes are
        found += _addresses(r, document)
    known = ", ".join(sorted(document.nodes))
    found += [
        warning(
            f"redis.nodes.{name}",
            f"the node has no keys: the map store knows only {known}",
            "give it some by `shardctl rebalance redis run --weights …`, or take it out of the file",
        )
        for name in sorted(r.nodes.keys() - document.nodes)
    ]
    found += _weights(r, document)
    return found


def _addresses(redis: RedisSettings, document: RedisMap) -> Iterator[Finding]:
    for name in sorted(document.addresses.keys() & redis.nodes.keys()):
        told = redis.nodes[name].address
        stored = document.address(name, told)
        if stored != told:
            yield warning(
                f"redis.nodes.{name}.address",
                f"the file says {told}, but a replica was promoted: proxies use {stored}, as the map store says",
                f'set address = "{stored}"; or make {told} the node again by `shardctl redis promote`',
            )


def _weights(redis: RedisSettings, document: RedisMap) -> Iterator[Finding]:
    """Only of files that give some: else nobody expects them to count. With ketama names count too."""
    weights = {name: node.weight for name, node in redis.nodes.items()}
    explicit = any("weight" in node.model_fields_set for node in redis.nodes.values())
    if not (explicit or document.ketama) or document.nodes != weights.keys():
        return
    first = first_of(redis)
    now, file, _ = spread(document, first.map.owners if first.ketama is None else first.ketama.continua[0])
    if now != file:
        what = "weights" if document.ketama is None else "weights or ketama names"
        given = ",".join(f"{name}={weight}" for name, weight in sorted(weights.items()))
        yield warning(
            "redis.nodes",
            f"{what} in the file are not those by which the map store has the keys, and count no more",
            f"`shardctl rebalance redis run --weights {given}` moves keys so; or put the store's into the file, which "
            "`shardctl rebalance redis status --json` shows",
        )
