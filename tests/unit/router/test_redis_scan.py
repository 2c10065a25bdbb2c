from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.router.redis_scan import ScanWay, scan_reply, scan_target, scan_way


@given(st.lists(st.lists(st.integers(1, 2**43), max_size=4), min_size=1, max_size=5))
def test_each_node_is_asked_from_its_beginning_to_its_end(cursors: list[list[int]]) -> None:
    asked: list[tuple[int, bytes]] = []
    ours = b"0"
    way = scan_way(len(cursors), 0)
    for _ in range(100):
        target = scan_target([b"SCAN", ours, b"COUNT", b"5"], way)
        assert target is not None
        node, args = target
        assert args[0] == b"SCAN" and args[2:] == [b"COUNT", b"5"]
        given_before = [cursor for place, cursor in asked if place == node]
        asked.append((node, args[1]))
        after = b"%d" % (*cursors[node], 0)[len(given_before)]
        reply = scan_reply(b"*2\r\n$%d\r\n%b\r\n*1\r\n$1\r\nk\r\n" % (len(after), after), node, way)
        head, size, ours, rest = reply.split(b"\r\n", 3)
        assert head == b"*2" and size == b"$%d" % len(ours) and rest == b"*1\r\n$1\r\nk\r\n" and int(ours) < 2**64
        if ours == b"0":
            break
    assert asked == [(node, b"%d" % cursor) for node, some in enumerate(cursors) for cursor in (0, *some)]


@pytest.mark.parametrize("cursor", [b"", b"-1", b"x", b"1.5", b"3", b"18446744073709551616", b"9" * 40])
def test_what_is_no_cursor(cursor: bytes) -> None:
    assert scan_target([b"SCAN", cursor], scan_way(3, 0)) is None


def test_errors_pass_and_cursors_have_a_bound() -> None:
    assert scan_reply(b"-ERR no\r\n", 1, scan_way(3, 0)) == b"-ERR no\r\n"
    with pytest.raises(ValueError, match="so many keys"):
        scan_reply(b"*2\r\n$16\r\n4503599627370496\r\n*0\r\n", 1, scan_way(3, 0))


def ended(way: ScanWay, node: int) -> bytes:
    """The cursor that a client gets when a node has no more keys."""
    return scan_reply(b"*2\r\n$1\r\n0\r\n*0\r\n", node, way).split(b"\r\n")[2]


def test_the_source_of_a_move_is_looked_at_first_and_the_target_last() -> None:
    way = scan_way(4, 7, source=3, target=0)
    asked, cursor = [], b"0"
    while True:
        target = scan_target([b"SCAN", cursor], way)
        assert target is not None and target[1] == [b"SCAN", b"0"]
        asked.append(target[0])
        cursor = ended(way, target[0])
        if cursor == b"0":
            break
    assert asked == [3, 1, 2, 0]


def test_a_pass_begins_anew_when_keys_begin_or_end_to_move() -> None:
    before, during, after = scan_way(3, 6), scan_way(3, 7, source=2, target=1), scan_way(3, 7)
    for old, new in ((before, during), (during, after), (before, after)):
        assert scan_target([b"SCAN", ended(old, old.order[0])], new) == (new.order[0], [b"SCAN", b"0"])
    assert scan_target([b"SCAN", ended(during, 2)], during) == (0, [b"SCAN", b"0"])
