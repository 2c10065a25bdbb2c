"""Up to when a replica has everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardproxy.backend.redis.replication import History, fields_of


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(0, 60))
def test_it_is_the_last_look_whose_offset_the_replica_has(steps: list[int], offset: int) -> None:
    history = History()
    offsets = sorted(steps)
    for number, told in enumerate(offsets):
        history.add("a", told, float(number))
    had = [float(number) for number, told in enumerate(offsets) if told <= offset]
    assert history.complete_until("a", offset) == (had[-1] if had else None)
    assert history.complete_until("b", offset) is None


def test_offsets_of_another_history_mean_nothing() -> None:
    history = History()
    history.add("a", 100, 1.0)
    history.add("b", 5, 2.0)
    assert history.complete_until("a", 100) is None
    assert history.complete_until("b", 100) == 2.0
    assert history.complete_until("b", 4) is None
    history.add("a", 3, 2.5)
    history.add("b", 50, 2.7)
    assert history.complete_until("b", 20) is None
    history.add("a", 100, 3.0)
    assert history.complete_until("a", 100) == 3.0


def test_fields_of_info() -> None:
    text = "# Replication\r\nrole:master\r\nslave0:ip=::1,port=1\r\n"
    assert fields_of(b"$%d\r\n%b\r\n" % (len(text), text.encode())) == {"role": "master", "slave0": "ip=::1,port=1"}
