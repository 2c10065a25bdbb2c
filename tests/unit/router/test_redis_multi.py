"""Where commands of a transaction go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.planner.redis.spec import find_spec
from shardproxy.router.redis import NOWHERE
from shardproxy.router.redis_multi import place_in_transaction
from shardproxy.topology.redis_ring import RedisRing, ring_of
from tests.ketama import ketama_ring

RING = ring_of({"a": 1, "b": 1, "c": 1})
ONE = RedisRing([0] * 4096)


def place(text: str, before: int = NOWHERE, ring: RedisRing = RING) -> tuple[int, str]:
    args = text.encode().split()
    spec = find_spec(args)
    assert spec is not None
    found, error = place_in_transaction(spec, args, ring, before)
    return found, error.decode()


@given(st.lists(st.sampled_from(["{x}", "{y}", "{z}", "k", "l"]), min_size=1, max_size=6))
def test_the_first_key_decides(keys: list[str]) -> None:
    now = NOWHERE
    for key in keys:
        node = RING.node_of(key.encode())
        found, error = place(f"INCR {key}", now)
        if now in (NOWHERE, node):
            assert (found, error) == (node, "")
        else:
            assert found == now and error.startswith("-CROSSSLOT ") and error.endswith("\r\n")
        now = found


def test_what_to_do_about_keys_of_two_nodes_is_what_the_placement_allows() -> None:
    assert place("INCR a", 1 - RING.node_of(b"a"))[1].endswith(", give them one {tag}\r\n")
    plain, square = ketama_ring({"a": 1, "b": 1}), ketama_ring({"a": 1, "b": 1}, b"[]")
    assert place("INCR a", 1 - plain.node_of(b"a"), plain)[1].endswith(
        ", which redis.hash_tag = '{}' lets you choose by giving them one {tag}\r\n"
    )
    assert place("INCR a", 1 - square.node_of(b"a"), square)[1].endswith(", give them one [tag]\r\n")


def test_commands_without_keys_go_anywhere() -> None:
    for text in ("PING", "TIME", "UNWATCH", "SELECT 0", "EVAL return_1 0", "LOLWUT", "ECHO a"):
        for before in (NOWHERE, 1):
            assert place(text, before) == (before, "")


@pytest.mark.parametrize(
    "text", ["MGET {x}1 {x}2", "DEL {x}1", "BLPOP {x}1 0", "XREAD BLOCK 0 STREAMS {x}1 $", "PUBLISH {x} m"]
)
def test_split_and_blocking_commands_have_one_node_too(text: str) -> None:
    assert place(text) == (RING.node_of(b"x"), "")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("MGET a b c d e f", "-CROSSSLOT "),
        ("KEYS *", "-ERR shardproxy does not do KEYS in a transaction: it goes to all nodes"),
        ("WAIT 1 1", "-ERR shardproxy does not do WAIT in a transaction: "),
        ("CLIENT SETNAME x", "-ERR shardproxy does not do CLIENT SETNAME in a transaction: it is about the connection"),
        ("HELLO 3", "-ERR shardproxy does not do HELLO in a transaction: "),
        ("SUBSCRIBE a", "-ERR shardproxy does not do SUBSCRIBE in a transaction: "),
        ("SELECT 1", "-ERR shardproxy does not do SELECT in a transaction: there is one database"),
        ("CLUSTER INFO", "-ERR shardproxy does not do CLUSTER INFO: "),
        ("EVAL redis.call 0", "-ERR shardproxy does not do EVAL in a transaction: a script without keys"),
    ],
)
def test_what_cannot_be_done(text: str, error: str) -> None:
    for before in (NOWHERE, 1):
        found, said = place(text, before)
        assert found == before and said.startswith(error), said


def test_one_node_has_everything() -> None:
    assert place("MGET a b c", ring=ONE) == (0, "") and place("KEYS *", ring=ONE) == (NOWHERE, "")
    assert place("WAIT 1 1", ring=ONE)[1]
    assert place("CONFIG SET hz 10", ring=ONE) == (NOWHERE, "")
    assert place("CONFIG SET requirepass x", ring=ONE)[1].startswith(
        "-ERR shardproxy does not do CONFIG SET in a transaction: requirepass: the proxy could not log in"
    )
