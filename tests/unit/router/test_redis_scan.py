from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.router.redis_scan import scan_reply, scan_target


@given(st.lists(st.lists(st.integers(1, 2**51), max_size=4), min_size=1, max_size=5))
def test_each_node_is_asked_from_its_beginning_to_its_end(cursors: list[list[int]]) -> None:
    asked: list[tuple[int, bytes]] = []
    ours = b"0"
    for _ in range(100):
        target = scan_target([b"SCAN", ours, b"COUNT", b"5"], len(cursors))
        assert target is not None
        node, args = target
        assert args[0] == b"SCAN" and args[2:] == [b"COUNT", b"5"]
        given_before = [cursor for place, cursor in asked if place == node]
        asked.append((node, args[1]))
        after = b"%d" % (*cursors[node], 0)[len(given_before)]
        reply = scan_reply(b"*2\r\n$%d\r\n%b\r\n*1\r\n$1\r\nk\r\n" % (len(after), after), node, len(cursors))
        head, size, ours, rest = reply.split(b"\r\n", 3)
        assert head == b"*2" and size == b"$%d" % len(ours) and rest == b"*1\r\n$1\r\nk\r\n" and int(ours) < 2**64
        if ours == b"0":
            break
    assert asked == [(node, b"%d" % cursor) for node, some in enumerate(cursors) for cursor in (0, *some)]


@pytest.mark.parametrize("cursor", [b"", b"-1", b"x", b"1.5", b"3", b"18446744073709551616", b"9" * 40])
def test_what_is_no_cursor(cursor: bytes) -> None:
    assert scan_target([b"SCAN", cursor], 3) is None


def test_errors_pass_and_cursors_have_a_bound() -> None:
    assert scan_reply(b"-ERR no\r\n", 1, 3) == b"-ERR no\r\n"
    with pytest.raises(ValueError, match="so many keys"):
        scan_reply(b"*2\r\n$16\r\n4503599627370496\r\n*0\r\n", 1, 3)
