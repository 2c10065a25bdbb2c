"""The scanner of commands: what it finds does not depend on how the bytes are cut."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.protocol.redis.commands import BROKEN, FOUND, MORE, CommandScanner
from shardproxy.protocol.redis.encode import command
from shardproxy.protocol.redis.words import Unbalanced, split_words

_COMMANDS = st.lists(st.lists(st.binary(max_size=30), min_size=1, max_size=6), max_size=8)


def scan(pieces: Sequence[bytes], max_bytes: int = 1 << 30, trusted: bool = True) -> tuple[list[list[bytes]], str]:
    """The commands found in these pieces, and the error at the end."""
    scanner = CommandScanner(max_bytes, trusted)
    found: list[list[bytes]] = []
    for piece in pieces:
        scanner.feed(piece)
        while True:
            outcome = scanner.next()
            if outcome != FOUND:
                break
            args = scanner.arguments()
            assert len(args) == scanner.count
            assert args[0] == scanner.data[scanner.name : scanner.name_end]
            if len(args) > 1:
                assert args[1] == scanner.data[scanner.key : scanner.key_end]
            assert b"*%d\r\n%b" % (len(args), b"".join(scanner.pieces())) == command(args)
            found.append(args)
        if outcome == BROKEN:
            assert scanner.next() == BROKEN
            return found, scanner.error
    return found, ""


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted({p % (len(data) + 1) for p in places}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(_COMMANDS, st.lists(st.integers(0, 10_000), max_size=10))
def test_arrays_however_they_are_cut(commands: list[list[bytes]], places: list[int]) -> None:
    data = b"".join(map(command, commands))
    assert scan(cut(data, places)) == (commands, "")


@given(_COMMANDS)
def test_byte_by_byte(commands: list[list[bytes]]) -> None:
    data = b"".join(map(command, commands))
    assert scan([data[i : i + 1] for i in range(len(data))]) == (commands, "")


@given(_COMMANDS)
def test_the_slices_are_the_clients_own_bytes(commands: list[list[bytes]]) -> None:
    data = b"".join(map(command, commands))
    scanner = CommandScanner(1 << 30)
    scanner.feed(data)
    seen = b""
    while scanner.next() == FOUND:
        seen += scanner.data[scanner.start : scanner.end]
    assert seen == data
    assert scanner.waiting == 0


@given(st.lists(st.binary(max_size=40), max_size=12), st.binary(max_size=60))
def test_garbage_ends_in_an_error_or_waits(pieces: list[bytes], garbage: bytes) -> None:
    whole = scan([b"".join(pieces) + garbage])
    assert scan([*pieces, garbage]) == whole
    data = b"".join(pieces) + garbage
    assert scan([data[i : i + 1] for i in range(len(data))]) == whole


@given(
    st.lists(
        st.sampled_from([b"*", b"$", b"1", b"2", b"0", b"-", b"\r", b"\n", b"\r\n", b"a", b'"', b" "]), max_size=30
    )
)
def test_near_garbage(pieces: list[bytes]) -> None:
    assert scan(pieces) == scan([b"".join(pieces)])


def test_inline_commands_between_arrays() -> None:
    data = b'PING\r\nset a "b c\\x41\\n"\n\r\n' + command([b"GET", b"a"]) + b"  get 'x\\'y' \r\n"
    expected = [[b"PING"], [b"set", b"a", b"b cA\n"], [b"GET", b"a"], [b"get", b"x'y"]]
    assert scan([data]) == (expected, "")
    assert scan([data[i : i + 1] for i in range(len(data))]) == (expected, "")


def test_empty_arrays_ask_for_nothing() -> None:
    assert scan([b"*0\r\n*-1\r\n\r\n*0\r\n" * 2000 + b"*1\r\n$4\r\nPING\r\n"]) == ([[b"PING"]], "")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$1\rx", "invalid bulk length"),
        (b"*1\r\n$1\r\nabc", "expected CRLF after an argument"),
        (b'get "a\r\n', "unbalanced quotes in request"),
        (b'get "a"b\r\n', "unbalanced quotes in request"),
        (b"a" * 70_000, "too big inline request"),
        (b"*1\r\n$2000000\r\n", "the command is longer than the proxy takes"),
    ],
)
def test_errors(data: bytes, error: str) -> None:
    assert scan([data], max_bytes=1_000_000) == ([], error)
    assert scan([data[i : i + 1] for i in range(len(data))], max_bytes=1_000_000) == ([], error)


def test_what_stands_before_an_error_is_found() -> None:
    assert scan([b"PING\r\nget 'a\r\nPING\r\n"]) == ([[b"PING"]], "unbalanced quotes in request")


def test_limits_before_login() -> None:
    assert scan([b"*11\r\n"], trusted=False)[1] == "unauthenticated multibulk length"
    assert scan([b"*1\r\n$16385\r\n"], trusted=False)[1] == "unauthenticated bulk length"
    assert scan([b"*2000000\r\n"], trusted=False)[1] == "invalid multibulk length"


def test_a_header_without_its_body_takes_no_memory() -> None:
    scanner = CommandScanner(1 << 30)
    tracemalloc.start()
    try:
        scanner.feed(b"*2\r\n$3\r\nGET\r\n$536870912\r\n")
        assert scanner.next() == MORE
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def test_a_million_arguments_in_pieces() -> None:
    words = [b"MGET", *[b"key:%d" % i for i in range(1_000_000)]]
    data = command(words)
    found, error = scan([data[i : i + 65536] for i in range(0, len(data), 65536)])
    assert error == ""
    assert found == [words]


def test_a_long_value_is_kept_in_pieces() -> None:
    value = bytes(10_000_000)
    data = command([b"SET", b"k", value])
    assert scan([data[i : i + 1000] for i in range(0, len(data), 1000)]) == ([[b"SET", b"k", value]], "")


_SIZES = st.sampled_from([0, 1, 9, 40_000, 65_530, 70_000, 140_000])


@settings(max_examples=50)
@given(st.lists(st.lists(_SIZES, min_size=1, max_size=5), min_size=1, max_size=4), st.integers(0, 1 << 30))
def test_long_arguments_however_they_are_cut(sizes: list[list[int]], seed: int) -> None:
    dice = random.Random(seed)
    commands = [[dice.randbytes(size) for size in some] for some in sizes]
    data = b"PING\r\n".join(map(command, commands))
    found, error = scan(cut(data, [dice.randrange(len(data)) for _ in range(12)]))
    assert (error, [words for words in found if words != [b"PING"]]) == ("", commands)


def test_a_long_command_of_many_arguments_is_not_copied_with_every_piece() -> None:
    data = command([b"RPUSH", b"k", *[bytes(10_000)] * 1000])
    scanner = CommandScanner(1 << 30)
    for at in range(0, len(data) - 65536, 65536):
        scanner.feed(data[at : at + 65536])
        assert scanner.next() == MORE
        assert len(scanner.data) < 300_000
        assert scanner.waiting == at + 65536
    scanner.feed(data[at + 65536 :])
    assert scanner.next() == FOUND
    assert scanner.data[scanner.start : scanner.end] == data


def test_a_long_command_of_many_arguments_has_a_limit() -> None:
    data = command([b"RPUSH", b"k", *[bytes(10_000)] * 100])
    pieces = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    assert scan(pieces, max_bytes=len(data))[1] == ""
    assert scan(pieces, max_bytes=len(data) - 1) == ([], "the command is longer than the proxy takes")


def test_lines_and_arrays_in_turn_are_not_copied_for_each_other() -> None:
    data = (b"PING\r\n" + command([b"ECHO", b"x"])) * 100
    scanner = CommandScanner(1 << 30)
    scanner.feed(data)
    for _ in range(100):
        assert scanner.next() == FOUND and scanner.arguments() == [b"PING"]
        assert len(scanner.data) < 20
        assert scanner.next() == FOUND and scanner.arguments() == [b"ECHO", b"x"]
        assert scanner.data is data
    assert scanner.next() == MORE and scanner.waiting == 0


@given(st.binary(max_size=40))
def test_words_of_any_line(line: bytes) -> None:
    try:
        words = split_words(line)
    except Unbalanced:
        return
    quoted = b" ".join(b'"' + b"".join(b"\\x%02x" % c for c in word) + b'"' for word in words)
    assert split_words(quoted) == words


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=20), st.integers(1, 5))
def test_arguments_in_slices(words: list[bytes], most: int) -> None:
    scanner = CommandScanner(1 << 30)
    scanner.feed(b"PING\r\n" + command(words) + command([b"NEXT"]))
    assert scanner.next() == scanner.next() == FOUND
    args: list[bytes] = []
    pieces: list[bytes] = []
    while True:
        before = len(args)
        ended = scanner.some_arguments(args, pieces, most)
        assert len(args) - before <= most
        if ended:
            break
    assert args == words == scanner.arguments()
    assert pieces == scanner.pieces()
    assert scanner.next() == FOUND and scanner.arguments() == [b"NEXT"]
