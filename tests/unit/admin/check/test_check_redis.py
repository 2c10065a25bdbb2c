"""What `shardctl check` says when the file's Redis nodes are not those of the stored map."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from shardproxy.admin.check.findings import Severity
from shardproxy.admin.check.redis import differences, redis_findings
from shardproxy.config import Address, Config, parse
from shardproxy.store.interface import ABSENT
from shardproxy.store.opening import open_store
from shardproxy.topology import redis_map as m
from shardproxy.topology.ketama import Server
from shardproxy.topology.redis_map import REDIS_MAP, RedisMap, first_ketama, first_map
from tests.unit.config.test_config_load import good

FIRST = first_map({"a": 1, "b": 1})
ADDRESSES = {"a": "10.0.0.1:7000", "b": "10.0.0.2:7000", "c": "10.0.0.3:7000"}


def config(names: str = "ab", weights: dict[str, int] | None = None, **redis: Any) -> Config:
    nodes: dict[str, Any] = {name: {"address": ADDRESSES[name]} for name in names}
    for name, weight in (weights or {}).items():
        nodes[name]["weight"] = weight
    return parse({**good(), "redis": {"nodes": nodes, **redis}}, "f.toml")


ELSEWHERE = m.promoted(FIRST, "b", Address("10.0.0.9", 7000))
MOVING = m.next_move(m.want(FIRST, ["b"] * 4096), 4096)
SENTINELS: dict[str, Any] = {"sentinels": ["10.0.0.8:26379"]}


KETAMA = first_ketama([Server("a", "a:1", 1), Server("b", "b:1", 1)])


def ketama(names: str = "ab", weights: dict[str, int] | None = None, tag: str = "", port: int = 1) -> Config:
    nodes = {
        name: {"address": ADDRESSES[name], "ketama_name": f"{name}:{port}", "weight": (weights or {}).get(name, 1)}
        for name in names
    }
    return parse({**good(), "redis": {"placement": "ketama", "hash_tag": tag, "nodes": nodes}}, "f.toml")


@pytest.mark.parametrize(
    ("file", "document", "told"),
    [
        (config(), FIRST, []),
        (config(weights={"a": 1}), FIRST, []),
        (config("a"), FIRST, [("error", "redis.nodes.b", "does not name")]),
        (config("abc"), FIRST, [("warning", "redis.nodes.c", "no keys")]),
        (config(), ELSEWHERE, [("warning", "redis.nodes.b.address", "proxies use 10.0.0.9:7000")]),
        (config(), m.promoted(FIRST, "b", Address("10.0.0.2", 7000)), []),
        (config(**SENTINELS), ELSEWHERE, []),
        (config(weights={"a": 2}), FIRST, [("warning", "redis.nodes", "weights")]),
        (config(), first_map({"a": 2, "b": 1}), []),  # nobody gave weights
        (config(), MOVING, []),
        (config(**SENTINELS), MOVING, []),
        (config(mode="cache"), MOVING, []),
        (ketama(), KETAMA, []),
        (ketama(weights={"a": 2}), KETAMA, [("warning", "redis.nodes", "ketama names")]),
        (ketama(weights={"a": 2, "b": 2}), KETAMA, []),
        (ketama(port=2), KETAMA, [("warning", "redis.nodes", "ketama names")]),
        (ketama("ba"), KETAMA, []),  # as for twemproxy, their order says nothing
        (ketama("abc"), KETAMA, [("warning", "redis.nodes.c", "no keys")]),
        (ketama("a"), KETAMA, [("error", "redis.nodes.b", "does not name")]),
        (ketama(tag="{}"), KETAMA, [("error", "redis.placement", 'and hash_tag "{}"')]),
        (ketama(), FIRST, [("error", "redis.placement", 'by placement "ring"')]),
        (config(), KETAMA, [("error", "redis.placement", 'by placement "ketama"')]),
        (config("a"), m.next_move(m.want(first_map({"a": 1}), ["b"] * 4096), 9), [("error", "redis.nodes.b", "does")]),
    ],
)
def test_differences(file: Config, document: RedisMap, told: list[tuple[str, str, str]]) -> None:
    found = differences(file, document)
    assert [(f.severity, f.where) for f in found] == [(Severity(severity), where) for severity, where, _ in told]
    assert all(words in f.what and f.fix for f, (_, _, words) in zip(found, told, strict=True))


def test_the_map_is_read_from_the_store(tmp_path: Path) -> None:
    file = config("a")
    file.remember_origin("f.toml", tmp_path, {})

    async def whole() -> list[int]:
        counts = [len(await redis_findings(file))]
        store = await open_store(file)
        counts.append(len(await redis_findings(file)))
        await store.put(REDIS_MAP, FIRST.document(), ABSENT)
        await store.close()
        return [*counts, len(await redis_findings(file))]

    assert asyncio.run(whole()) == [0, 0, 1]
