"""Splitting and joining against a model: one server with all keys answers what several with their shares do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.merge.redis_replies import join_split
from shardproxy.planner.redis.spec import CommandSpec, find_spec
from shardproxy.router.redis import APART, NOWHERE, Parts, apart_error, hindrance, place_of, split
from shardproxy.topology.redis_ring import RedisRing, ring_of
from tests.ketama import ketama_ring

RING = ring_of({"a": 1, "b": 1, "c": 1})
ONE = ring_of({"a": 1})


def spec_of(*args: bytes) -> CommandSpec:
    spec = find_spec(args)
    assert spec is not None
    return spec


class Model:
    """A server that knows the SPLIT commands; keys that begin with ! make it fail."""

    def __init__(self, resp3: bool) -> None:
        self.data: dict[bytes, bytes] = {}
        self.null = b"_\r\n" if resp3 else b"$-1\r\n"

    def answer(self, args: list[bytes]) -> bytes:
        name, keys = args[0].upper(), args[1:]
        step = 2 if name == b"MSET" else 1
        for key in keys[::step]:
            if key.startswith(b"!"):
                return b"-WRONG\r\n"
        if name == b"MGET":
            values = [
                b"$%d\r\n%b\r\n" % (len(self.data[k]), self.data[k]) if k in self.data else self.null for k in keys
            ]
            return b"*%d\r\n%b" % (len(keys), b"".join(values))
        if name == b"MSET":
            self.data |= dict(zip(keys[::2], keys[1::2], strict=True))
            return b"+OK\r\n"
        if name in (b"EXISTS", b"TOUCH"):
            return b":%d\r\n" % sum(key in self.data for key in keys)
        return b":%d\r\n" % sum(self.data.pop(key, None) is not None for key in keys)


NAMES = st.sampled_from([b"MGET", b"mset", b"DEL", b"Unlink", b"EXISTS", b"TOUCH"])
KEYS = st.one_of(st.binary(max_size=3), st.sampled_from([b"k%d" % n for n in range(12)]))
BAD = st.sampled_from([b"!1", b"!2", b"!3"])


@st.composite
def commands(draw: st.DrawFn) -> list[bytes]:
    name = draw(NAMES)
    keys = draw(st.lists(st.one_of(KEYS, KEYS, KEYS, KEYS, KEYS, BAD), min_size=1, max_size=10))
    if name != b"mset":
        return [name, *keys]
    # What fails has no effect on one server, and some on several: a model need not know more.
    return [name, *(word for key in keys if key[:1] != b"!" for word in (key, draw(st.binary(max_size=4))))]


@given(st.lists(commands(), max_size=12), st.booleans(), st.booleans())
def test_several_nodes_answer_as_one_server(history: list[list[bytes]], resp3: bool, ketama: bool) -> None:
    ring = ketama_ring({"a": 1, "b": 2, "c": 1}) if ketama else RING
    whole, nodes = Model(resp3), [Model(resp3) for _ in range(3)]
    for args in history:
        if len(args) < 2 or (args[0] in (b"DEL", b"Unlink") and any(key[:1] == b"!" for key in args)):
            continue
        spec = spec_of(*args)
        places, words, keys = split(spec, args, args, ring)
        joined = join_split(spec.join, [nodes[n].answer(part) for n, part in zip(places, words, strict=True)], keys)
        assert joined == whole.answer(args)
    assert whole.data == {key: value for node in nodes for key, value in node.data.items()}
    assert all(ring.node_of(key) == place for place, node in enumerate(nodes) for key in node.data)


@given(st.lists(KEYS, min_size=1, max_size=6))
def test_parts_are_the_whole_command(keys: list[bytes]) -> None:
    args = [b"MSET", *(word for number, key in enumerate(keys) for word in (key, b"%d" % number))]
    places, parts, numbers = split(spec_of(*args), args, [b"<%b>" % arg for arg in args], RING)
    assert sorted(n for some in numbers for n in some) == list(range(len(keys)))
    for node, part, some in zip(places, parts, numbers, strict=True):
        assert part == [b"<MSET>", *(word for n in some for word in (b"<%b>" % keys[n], b"<%d>" % n))]
        assert {RING.node_of(keys[n]) for n in some} == {node}
    assert [some[0] for some in numbers] == sorted(some[0] for some in numbers)


def test_a_value_that_is_missing() -> None:
    args = [b"MSET", b"a", b"1", b"b"]
    assert split(spec_of(*args), args, args, RING) == ([], [], [])


def test_places_of_keyed_commands() -> None:
    apart = next(b"k%d" % n for n in range(100) if RING.node_of(b"k%d" % n) != RING.node_of(b"a"))
    for args, place in [
        ([b"GET", b"a"], RING.node_of(b"a")),
        ([b"get", b"x{a}y"], RING.node_of(b"a")),
        ([b"RENAME", b"a", apart], APART),
        ([b"RENAME", b"a", b"{a}2"], RING.node_of(b"a")),
        ([b"EVAL", b"return 1", b"2", b"a", apart], APART),
        ([b"EVAL", b"return 1", b"1", b"a", apart], RING.node_of(b"a")),
        ([b"EVAL", b"return 1", b"0"], NOWHERE),
        ([b"EVAL", b"return 1", b"9", b"a"], NOWHERE),
        ([b"GEORADIUS", b"a", b"1", b"1", b"1", b"m", b"STORE", apart], APART),
        ([b"SORT", b"a", b"STORE", apart], APART),
        ([b"XREAD", b"COUNT", b"1", b"STREAMS", b"a", apart, b"0", b"0"], APART),
        ([b"ZUNIONSTORE", b"{a}1", b"2", b"a", b"{a}2"], RING.node_of(b"a")),
        ([b"PUBLISH", b"a", b"text"], RING.node_of(b"a")),
        ([b"PING"], NOWHERE),
    ]:
        assert place_of(spec_of(*args), args, RING) == place, args
    assert place_of(spec_of(b"RENAME"), [b"RENAME", b"a", apart], ONE) == 0
    assert apart_error(spec_of(b"RENAME"), RING).startswith(
        b"-CROSSSLOT Keys in request don't hash to the same slot: RENAME "
    )


@pytest.mark.parametrize(
    ("text", "hinders"),
    [
        ("SORT a BY nosort", False),
        ("SORT a BY w_*", True),
        ("sort a by {a}w_*", False),
        ("SORT x{a} BY {a}*->f GET # GET {a}o_*", False),
        ("SORT a BY {*}w", True),
        ("SORT a GET # DESC", False),
        ("SORT_RO a LIMIT 0 1 GET o_*", True),
        ("SORT a STORE get o_*", False),
        ("COPY a {a}b REPLACE", False),
        ("COPY a {a}b DB 0", False),
        ("COPY a {a}b db 1 REPLACE", True),
        ("EVAL return(1) 0", False),
        ("EVAL redis.call('get','a') 0", True),
        ("EVAL redis.call('get','a') 1 a", False),
        ("EVALSHA 0123 0", True),
        ("EVALSHA 0123 1 a", False),
        ("FCALL f 0", True),
        ("FCALL_RO f 1 a", False),
        ("GET a", False),
    ],
)
def test_what_would_look_on_other_nodes(text: str, hinders: bool) -> None:
    args = text.encode().split()
    assert bool(hindrance(spec_of(*args), args, RING)) is hinders
    assert bool(hindrance(spec_of(*args), args, ONE)) is (hinders and args[0] == b"COPY")


def test_what_a_tag_is_the_ring_says() -> None:
    square = ketama_ring({"a": 1, "b": 1, "c": 1}, b"[]")
    plain = ketama_ring({"a": 1, "b": 1, "c": 1})
    sort = [b"SORT", b"x[l]", b"BY", b"[l]w_*"]
    assert hindrance(spec_of(*sort), sort, square) == ""
    # Of the keys of this pattern nobody knows where they are: the braces mean nothing.
    sort = [b"SORT", b"{l}", b"BY", next(p for p in (b"{l}%d*" % n for n in range(999)) if plain.node_of(p) == LISTS)]
    assert plain.node_of(b"{l}") == LISTS
    assert hindrance(spec_of(*sort), sort, plain).endswith(
        "redis.hash_tag = '{}' lets you choose by giving the list and the pattern one {tag}"
    )
    assert apart_error(spec_of(b"RENAME"), square).endswith(b"on one node, give them one [tag]\r\n")
    assert apart_error(spec_of(b"RENAME"), plain).endswith(
        b"redis.hash_tag = '{}' lets you choose by giving them one {tag}\r\n"
    )


LISTS = ketama_ring({"a": 1, "b": 1, "c": 1}).node_of(b"{l}")


def test_a_ring_of_one_node_knows_it() -> None:
    assert ONE.single and not RING.single
    assert RedisRing([2, 2]).single and ketama_ring({"a": 1}).single


@given(
    st.sampled_from([b"MGET", b"MSET", b"DEL"]), st.lists(st.binary(max_size=3), min_size=1, max_size=30),
    st.integers(1, 8),
)  # fmt: skip
def test_in_slices_it_is_split_as_at_once(name: bytes, words: list[bytes], most: int) -> None:
    args = [name, *words]
    spec, pieces = spec_of(*args), [b"<%b>" % word for word in args]
    parts = Parts(spec, args, pieces)
    slices = 1
    while not parts.place(RING, most):
        slices += 1
    assert (parts.nodes, parts.words, parts.keys) == split(spec, args, pieces, RING)
    assert slices >= len(words) // (most + 1) or not parts.nodes
