"""How long blocking commands wait."""

from __future__ import annotations

import pytest

from shardproxy.planner.redis.spec import find_spec
from shardproxy.planner.redis.waits import longest_wait


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("BLPOP k 0", None),
        ("BLPOP k l 1.5", 1.5),
        ("BRPOPLPUSH a b 3", 3.0),
        ("BLMOVE a b LEFT LEFT 0.0", None),
        ("BLMPOP 2 1 k LEFT", 2.0),
        ("bzmpop 0 1 k MIN", None),
        ("BZPOPMAX k 1e1", 10.0),
        ("XREAD BLOCK 1500 STREAMS s $", 1.5),
        ("xreadgroup group g c count 1 block 0 streams s >", None),
        ("BLPOP k x", 0.0),
        ("BLPOP k -1", 0.0),
        ("BLMPOP x 1 k LEFT", 0.0),
    ],
)
def test_longest_wait(text: str, seconds: float | None) -> None:
    args = text.encode().split()
    spec = find_spec(args)
    assert spec is not None and spec.blocks
    assert longest_wait(spec, args) == seconds


def test_streams_named_block_are_no_option() -> None:
    args = b"XREADGROUP GROUP BLOCK c BLOCK 5000 STREAMS s >".split()
    spec = find_spec(args)
    assert spec is not None and longest_wait(spec, args) == 5.0
