from __future__ import annotations

import pytest

from shardproxy.executor.variants import look, plain, variant
from shardproxy.protocol.mysql.binary import build_execute, parse_execute
from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.values import Value

INT, TEXT, DOUBLE = (FieldType.LONGLONG, False), (FieldType.VAR_STRING, False), (FieldType.DOUBLE, False)


def of(*parameters: tuple[tuple[int, bool], Value], long_data: dict[int, bytes] | None = None) -> bytes:
    bound = [(kind, unsigned, value) for (kind, unsigned), value in parameters]
    payload = build_execute(1, bound, long_data=long_data or {})
    return variant(parse_execute(payload, len(parameters), None, long_data))


def test_numbers_are_told_apart_by_type_alone() -> None:
    assert of((INT, 5), (DOUBLE, 1.5)) == of((INT, -(2**63)), (DOUBLE, 1e300))
    assert of((INT, 5)) != of((DOUBLE, 5.0))
    assert of((INT, 5)) != of(((FieldType.LONGLONG, True), 5))
    assert plain(bytes([FieldType.LONGLONG, 0, FieldType.DATETIME, 0]))
    assert not plain(bytes([FieldType.LONGLONG, 0, FieldType.VAR_STRING, 0]))


def test_nulls_are_variants_of_their_own() -> None:
    assert len({of((INT, 5), (INT, 5)), of((INT, None), (INT, 5)), of((INT, 5), (INT, None))}) == 3
    assert of((TEXT, None)) != of((TEXT, b"word"))


def test_long_data_counts_as_the_text_that_it_is() -> None:
    assert of((TEXT, b""), long_data={0: b"1e9"}) == of((TEXT, b"1e9"))
    assert of((TEXT, b""), long_data={0: b"word"}) == of((TEXT, b"word"))


@pytest.mark.parametrize(
    "harmless",
    [b"", b"word", b"5", b"+5", b"007", b" 5", b"5 ", b"9223372036854775807", b"5abc", b"5.5abc", b"2024-01-02",
     b"10:11:12", b".", b"-", b"e5", b"1e", b"--5", b"0x10", b"5,5", b"x" * 70_000, "\u00e9".encode(), b"5.5\0",
     b"550e8400-e29b-41d4-a716-446655440000"],
)  # fmt: skip
def test_texts_that_leave_no_trace_share_a_statement(harmless: bytes) -> None:
    assert look(harmless) == look(b"word")


def test_texts_that_leave_a_trace_are_told_apart() -> None:
    kinds = [b"-5", b"5.5", b"-5.5", b"1e2", b"-1e2", b"1e400", b"99999999999999999999", b"-99999999999999999999",
             b"18446744073709551615", b" 5.5", b"5.5 ", b"+5.5", b"9" * 1100]  # fmt: skip
    assert len({look(kind) for kind in [*kinds, b"word"]}) == len(kinds) + 1
    for one, like in ((b"-5", b"-7"), (b"5.5", b".25"), (b"5.", b"0.0"), (b"1e2", b"5.5e-1"), (b"-5.5", b"-.1")):
        assert look(one)[:2] == look(like)[:2]
