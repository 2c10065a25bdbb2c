"""The table of commands is what real servers say: none is missing, and keys are where they see them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.planner.redis.finders import radius, sort, streams
from shardproxy.planner.redis.spec import (
    CommandSpec,
    Way,
    arity_error,
    arity_fits,
    find_spec,
    key_indexes,
    unknown_error,
)
from shardproxy.planner.redis.table import ALL, CONTAINERS
from tests.redis.kinds import Kind, kinds_of_nodes

# The server does not call these writes, but they may change data on every replica.
_MAY_WRITE = {b"EVAL", b"EVALSHA", b"FCALL", b"PUBLISH", b"SPUBLISH"}
# Channels, which the server does not give as keys (except those of the sharded commands).
_CHANNELS = {b"PUBLISH", b"SUBSCRIBE", b"UNSUBSCRIBE"}


@dataclass(frozen=True)
class Told:
    """What a server tells of one command."""

    name: bytes
    arity: int
    flags: set[bytes]
    places: tuple[int, int, int]


class Server:
    """A server and what it tells."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.told = [each for reply in client.execute_command("COMMAND") for each in _told(reply)]


def _told(reply: Any) -> Iterator[Told]:
    yield Told(reply[0].upper(), reply[1], set(reply[2]), tuple(reply[3:6]))
    for sub in reply[9] if len(reply) > 9 else ():
        yield from _told(sub)


@pytest.fixture(scope="module", params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    kind: Kind = request.param
    with kinds_of_nodes(kind, 1) as nodes, nodes[0].connect(protocol=2) as client:
        client.response_callbacks.clear()
        yield Server(client)


@pytest.fixture
def told(server: Server) -> list[Told]:
    return server.told


def spec_of(name: bytes) -> CommandSpec | None:
    return find_spec(name.split(b"|") if b"|" in name else [name])


def test_every_command_of_the_server_has_a_spec(told: list[Told]) -> None:
    assert len(told) > 350
    found = {each.name: spec_of(each.name) for each in told}
    assert [name for name, spec in found.items() if spec is None or spec.name != name] == []


def test_what_the_server_says_of_it(told: list[Told]) -> None:
    for each in told:
        spec = spec_of(each.name)
        assert spec is not None
        assert spec.write == (b"write" in each.flags or each.name in _MAY_WRITE), each.name
        if each.name not in _CHANNELS:
            assert (spec.first, spec.last, spec.step) == each.places, each.name
        # Whatever number of arguments the server takes, the proxy lets through.
        for count in range(1, 12):
            fits = count == each.arity if each.arity > 0 else count >= -each.arity
            assert arity_fits(spec, [b""] * count) or not fits, (each.name, count)
        # A command whose keys depend on its arguments has a finder (SORT_RO's are where they seem to be).
        if b"movablekeys" in each.flags and spec.way is not Way.REFUSED and each.name != b"SORT_RO":
            assert spec.find is not None, each.name
        assert (each.name in CONTAINERS) == any(other.name.startswith(each.name + b"|") for other in told)


def test_blocking_commands_have_a_connection_of_their_own(told: list[Told]) -> None:
    for each in told:
        if b"blocking" in each.flags and each.name not in (b"XREAD", b"XREADGROUP"):
            spec = spec_of(each.name)
            assert spec is not None and spec.blocks, each.name
    for text in ("XREAD COUNT 1 BLOCK 0 STREAMS a 0", "xreadgroup group g c block 0 streams a 0"):
        waits = find_spec(text.encode().split())
        assert waits is not None and waits.way is Way.OWN and waits.blocks
    for text in ("XREAD STREAMS BLOCK 0", "XREADGROUP GROUP BLOCK BLOCK STREAMS a 0"):
        waits = find_spec(text.encode().split())
        assert waits is not None and waits.way is Way.KEYED and not waits.blocks


def test_what_is_refused_says_what_to_do() -> None:
    for spec in ALL:
        assert bool(spec.refusal) == (spec.way is Way.REFUSED)


_WORDS = st.sampled_from(
    b"a b c 0 1 2 3 4 5 -1 x 00 +1 STORE store STOREDIST BY GET LIMIT ALPHA COUNT BLOCK STREAMS streams GROUP NOACK "
    b"WEIGHTS AGGREGATE SUM MAX REPLACE LEFT RIGHT MATCH 1.5 # * m km WITHSCORES".split()
)
# Those with arguments that matter come more often.
_FINDERS = [spec for spec in ALL if spec.find is not None and spec.find not in (radius, sort, streams)]


@settings(max_examples=300)
@given(st.data())
def test_keys_are_where_the_server_finds_them(server: Server, data: st.DataObject) -> None:
    known = {each.name for each in server.told}
    # In commands that are not well formed the server looks for options where none can be: see the test below for these.
    some = [
        s
        for s in ALL
        if s.name in known
        and not s.channels
        and s.way is not Way.REFUSED  # nobody asks for their keys
        and s.name not in CONTAINERS
        and (not s.find or s in _FINDERS)
    ]
    finders = [s for s in _FINDERS if s.name in known]
    spec = data.draw(st.one_of(st.sampled_from(finders), st.sampled_from(some)))
    name = spec.name.split(b"|")
    args = [*name, *data.draw(st.lists(_WORDS, min_size=max(0, abs(spec.min_args) - len(name)), max_size=14))]
    _compare(server.client, args, spec)


_VALID = st.one_of(
    st.builds(
        lambda n, k, rest: [b"EVAL", b"s", b"%d" % n, *k[:n], *rest],
        st.integers(0, 4),
        st.just([b"k"] * 4),
        st.lists(_WORDS, max_size=3),
    ),
    st.builds(
        lambda n, rest: [b"ZUNIONSTORE", b"d", b"%d" % n, *[b"k"] * n, *rest],
        st.integers(1, 4),
        st.lists(_WORDS, max_size=3),
    ),
    st.builds(
        lambda name, options, n: [*name, *options, b"STREAMS", *[b"s"] * n, *[b"0"] * n],
        st.sampled_from([[b"XREAD"], [b"XREADGROUP", b"GROUP", b"STREAMS", b"BLOCK"]]),
        st.sampled_from([[], [b"COUNT", b"1"], [b"BLOCK", b"1"], [b"count", b"1", b"block", b"2"]]),
        st.integers(1, 4),
    ),
    st.builds(
        lambda options: [b"SORT", b"k", *(word for option in options for word in option)],
        st.lists(
            st.sampled_from(
                [
                    [b"BY", b"STORE"],
                    [b"GET", b"#"],
                    [b"LIMIT", b"0", b"STORE"],
                    [b"STORE", b"d"],
                    [b"store", b"e"],
                    [b"DESC"],
                    [b"ALPHA"],
                ]
            )
        ),
    ),
    st.builds(
        lambda head, options: [*head, *(word for option in options for word in option)],
        st.sampled_from([b"GEORADIUS k 1 1 1 m".split(), b"GEORADIUSBYMEMBER k STORE 1 m".split()]),
        st.lists(st.sampled_from([[b"STORE", b"d"], [b"STOREDIST", b"e"], [b"COUNT", b"1"], [b"ASC"]])),
    ),
)


@settings(max_examples=150)
@given(_VALID)
def test_keys_of_well_formed_commands(server: Server, args: list[bytes]) -> None:
    spec = find_spec(args)
    assert spec is not None
    assert _compare(server.client, args, spec)


def _compare(client: Any, args: list[bytes], spec: CommandSpec) -> bool:
    """Whether the server told where the keys are; where it did, ours are the same."""
    try:
        keys = client.execute_command("COMMAND", "GETKEYS", *args)
    except Exception as error:  # redis-py's classes say less than the text
        text = str(error)
        assert "has no key arguments" in text or "Invalid" in text or "number of arg" in text, text
        if "has no key arguments" in text:
            assert list(key_indexes(spec, args)) == []
        return "has no key arguments" in text
    ours = [args[index] for index in key_indexes(spec, args)]
    if spec.name.startswith(b"GEORADIUS"):  # of several STORE the server sees the first, and uses the last
        assert set(keys) <= set(ours), args
    else:
        assert sorted(ours) == sorted(keys), args  # it tells where to store first or last
    return True


@pytest.mark.parametrize(
    "args",
    [
        [b"nosuch"],
        [b"NoSuch", b"a", b"b c"],
        [b"x" * 300, b"y" * 100, b"z" * 100, b"w"],
        [b"no\r\nsuch", b"\r\n+OK", b"\xff'"],
        [b"", b""],
        [b"config", b"nosuch"],
        [b"OBJECT", b"x" * 200, b"a"],
        [b"xgroup", b"a\nb"],
        [b"get"],
        [b"GET", b"a", b"b"],
        [b"Config"],
        [b"config", b"get"],
        [b"Object", b"Encoding"],
        [b"MSET", b"a"],
        [b"DEL"],
        [b"eval", b"x"],
    ],
)
def test_errors_are_worded_as_the_server_does(server: Server, args: list[bytes]) -> None:
    spec = find_spec(args)
    assert spec is None or not arity_fits(spec, args)
    ours = unknown_error(args) if spec is None else arity_error(spec)
    kwargs = server.client.connection_pool.connection_kwargs
    with socket.create_connection((kwargs["host"], kwargs["port"])) as raw, raw.makefile("rb") as replies:
        raw.sendall(b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in args))
        assert replies.readline() == ours
