"""Which keys move, said in SQL and decided in Python: the same for every value that the servers store."""

from __future__ import annotations

import asyncio
import random

import pytest

from shardproxy.reshard.link import connect
from shardproxy.topology.keys import BUCKETS, KeyType
from shardproxy.topology.moving import MovingKeys
from tests.reshard.sides import LOGIN, Sides

_DICE = random.Random(3)
_TEXTS = [
    "",
    "a",
    "A",
    "ab ",
    "ab",
    "é",
    "Zoë",
    "日本",
    "x'y",
    "a\\b",
    "50%",
    *(f"user{i}@example.org" for i in range(150)),
]
_NUMBERS = [0, 1, -1, 127, -128, *(_DICE.randint(-(2**31), 2**31 - 1) for _ in range(200)), *range(100, 20100, 100)]


@pytest.mark.parametrize(
    ("column", "key_type", "values"),
    [
        ("INT", KeyType.INT, _NUMBERS),
        ("BIGINT UNSIGNED", KeyType.INT, [2**64 - 1, 2**63, *(abs(n) for n in _NUMBERS)]),
        ("BIGINT", KeyType.INT, [-(2**63), 2**63 - 1, *_NUMBERS]),
        ("VARCHAR(60) COLLATE utf8mb4_bin", KeyType.TEXT, _TEXTS),
        ("CHAR(60) COLLATE utf8mb4_bin", KeyType.TEXT, _TEXTS),
        ("VARCHAR(60) CHARACTER SET utf8mb3 COLLATE utf8mb3_bin", KeyType.TEXT, _TEXTS),
        ("VARCHAR(60) CHARACTER SET ascii COLLATE ascii_bin", KeyType.TEXT, [t for t in _TEXTS if t.isascii()]),
        ("VARBINARY(60)", KeyType.BINARY, [*(t.encode() for t in _TEXTS), b"\0\xff", b"ab \0"]),
        ("BINARY(24)", KeyType.BINARY, [t.encode()[:24] for t in _TEXTS]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_condition_and_decision_agree(sides: Sides, column: str, key_type: KeyType, values: list[object]) -> None:
    sides.source.rows(f"CREATE TABLE keys_of (n INT PRIMARY KEY, k {column} NOT NULL)", database=sides.database)
    with sides.source.connect(sides.database) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO keys_of VALUES (%s, %s)", list(enumerate(values)))
    sets = [MovingKeys(key_type, buckets=_DICE.sample(range(BUCKETS), size)) for size in (0, 1, 40, 2000, BUCKETS)] + [
        MovingKeys(key_type, buckets=range(1000, 3000))
    ]
    if key_type is KeyType.INT:
        sets += [
            MovingKeys(key_type, intervals=[(-(2**63), 0), (100, 5000), (2**63, 2**64)]),
            MovingKeys(key_type, intervals=[(0, 1), (127, 128)]),
        ]

    async def ask() -> list[list[list[bytes | None]]]:
        async with await connect(sides.server(sides.source), LOGIN) as link:
            table = f"`{sides.database}`.keys_of".encode()
            texts = [b"SELECT k, %s FROM %s" % (moving.condition("k"), table) for moving in sets]
            return [answer.values() for answer in await link.queries(texts)]

    for moving, rows in zip(sets, asyncio.run(ask()), strict=True):
        assert len(rows) == len(values)
        for value, said in rows:
            assert moving.holds_text(value) == (said == b"1"), (value, said, moving.condition("k")[:80])
