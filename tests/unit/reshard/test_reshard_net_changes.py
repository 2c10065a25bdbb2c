"""Many changes to the least: the result is what one after the other would have made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import ReshardError
from shardproxy.reshard.binlog import Change
from shardproxy.reshard.net_changes import NetChanges

steps = st.lists(st.tuples(st.sampled_from("iudm"), st.integers(0, 5), st.integers(0, 5)), max_size=40)


def history(
    begin: set[int], wanted: list[tuple[str, int, int]]
) -> tuple[list[Change], dict[bytes, bytes], dict[bytes, bytes]]:
    """Changes that are possible, out of any wishes; rows before and after."""
    rows = {b"%d" % key: b"(old %d)" % key for key in begin}
    before = dict(rows)
    changes: list[Change] = []
    for number, (what, a, b) in enumerate(wanted):
        key, other, image = b"%d" % a, b"%d" % b, b"(%d)" % number
        if what == "i" and key not in rows:
            changes.append((0, None, key, image))
            rows[key] = image
        elif what == "u" and key in rows:
            changes.append((0, key, key, image))
            rows[key] = image
        elif what == "d" and key in rows:
            changes.append((0, key, None, None))
            del rows[key]
        elif what == "m" and key in rows and other not in rows:
            changes.append((0, key, other, image))
            del rows[key]
            rows[other] = image
    return changes, before, rows


@given(st.sets(st.integers(0, 5)), steps, st.sets(st.integers(0, 5)))
def test_result(begin: set[int], wanted: list[tuple[str, int, int]], above: set[int]) -> None:
    changes, before, after = history(begin, wanted)
    hidden = {b"%d" % key for key in above}
    net = NetChanges("t")
    net.add(changes, hidden)
    target = {key: image for key, image in before.items() if key not in hidden}
    gone = net.gone()
    assert len(gone) == len(set(gone))
    for key in gone:
        del target[key]  # what must be deleted is there
    images = {image: key for key, image in after.items()}
    for image in net.present():
        assert images[image] not in target
        target[images[image]] = image
    assert target == {key: image for key, image in after.items() if key not in hidden}


@pytest.mark.parametrize(
    "changes",
    [
        [(0, None, b"1", b"(a)"), (0, None, b"1", b"(b)")],
        [(0, b"1", None, None), (0, b"1", None, None)],
        [(0, b"1", None, None), (0, b"1", b"1", b"(a)")],
    ],
)
def test_contradictions(changes: list[Change]) -> None:
    with pytest.raises(ReshardError, match="changes are missing"):
        NetChanges("t").add(changes)
