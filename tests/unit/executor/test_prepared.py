"""Bound parameters as shard keys: exact, or not a key at all."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import SqlError
from shardproxy.executor.prepared import (
    Execution,
    bound_value,
    first_packet,
    joined,
    open_execution,
    parameter_numbers,
    value_reader,
)
from shardproxy.planner.cache import CachedPlan
from shardproxy.planner.key_values import NULLVALUE, UNROUTABLE, NoValue, key_value
from shardproxy.planner.plan import Opcode, Plan, Rung, StatementKind, Value
from shardproxy.protocol.mysql.binary import build_execute
from shardproxy.protocol.mysql.constants import MAX_PAYLOAD, FieldType
from shardproxy.protocol.mysql.framing import packet
from shardproxy.session.profile import profile
from shardproxy.session.session import PreparedStatement, Session
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.keys import KeyType, KeyValue, canonical_text

INT, TEXT, BINARY = KeyType.INT, KeyType.TEXT, KeyType.BINARY
PLAIN = SqlModes()
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.binary(max_size=20),
    st.text(max_size=8).map(str.encode), st.integers(0, 10**17).map(lambda n: b"%d" % n),
    st.just(Decimal("1.5")), st.just(date(2026, 1, 2)),
)  # fmt: skip
FLAGS = st.booleans()


# ── values ──


@given(VALUES, FLAGS, st.sampled_from(KeyType), FLAGS, FLAGS)
def test_a_bound_value_is_a_key_of_the_type_or_none(
    value: object, negative: bool, key_type: KeyType, blob: bool, single_byte: bool
) -> None:
    key = bound_value(value, negative, key_type, blob, SqlModes(single_byte=single_byte))
    if value is None:
        assert key is NULLVALUE
    elif key is not UNROUTABLE:
        assert type(key) is (int if key_type is INT else bytes)


@given(st.integers(-(2**63), 2**64 - 1), FLAGS)
def test_integers_are_themselves(value: int, negative: bool) -> None:
    assert bound_value(value, negative, INT, False, PLAIN) == (-value if negative else value)
    assert bound_value(value, negative, TEXT, False, PLAIN) is UNROUTABLE
    assert bound_value(value, negative, BINARY, False, PLAIN) is UNROUTABLE


@given(
    st.text(st.characters(exclude_characters="'\\\0", exclude_categories=["Cs"]), max_size=18), st.sampled_from(KeyType)
)
def test_a_bound_text_is_what_the_same_text_is_as_a_literal(text: str, key_type: KeyType) -> None:
    raw = text.encode()
    bound = bound_value(raw, False, key_type, False, PLAIN)
    assert bound in (UNROUTABLE, key_value(b"'" + raw + b"'", False, key_type, PLAIN))
    if key_type is TEXT:
        assert bound == canonical_text(raw)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b"0", 0),
        (b"42", 42),
        (b"9" * 15, 10**15 - 1),
        (b"9" * 16, UNROUTABLE),  # a server compares through a double
        (b"", UNROUTABLE),
        (b"007", UNROUTABLE),
        (b"00", UNROUTABLE),
        (b" 7", UNROUTABLE),
        (b"7 ", UNROUTABLE),
        (b"7.0", UNROUTABLE),
        (b"7a", UNROUTABLE),
        ("٣".encode(), UNROUTABLE),
    ],
)
def test_texts_as_integer_keys(text: bytes, key: KeyValue | NoValue) -> None:
    assert bound_value(text, False, INT, False, PLAIN) == key
    assert bound_value(text, True, INT, False, PLAIN) is UNROUTABLE


@pytest.mark.parametrize("value", [True, 1.0, Decimal(1), date(2026, 1, 2)])
@pytest.mark.parametrize("key_type", KeyType)
def test_what_is_converted_when_compared_is_no_key(value: object, key_type: KeyType) -> None:
    assert bound_value(value, False, key_type, False, PLAIN) is UNROUTABLE


@pytest.mark.parametrize(
    ("value", "blob", "single_byte", "key"),
    [
        (b"bob", False, False, b"bob"),
        (b"bob  ", False, False, b"bob"),
        ("bøb".encode(), False, False, "bøb".encode()),
        ("bøb".encode(), False, True, UNROUTABLE),
        (b"bob", False, True, b"bob"),
        (b"b\xf8b", False, False, UNROUTABLE),
        (b"bob", True, False, UNROUTABLE),
    ],
)
def test_text_keys(value: bytes, blob: bool, single_byte: bool, key: KeyValue | NoValue) -> None:
    assert bound_value(value, False, TEXT, blob, SqlModes(single_byte=single_byte)) == key


@pytest.mark.parametrize(
    ("value", "blob", "key"),
    [(b"\0\xff ", True, b"\0\xff "), (b"ab ", False, b"ab "), (b"\0\xff", False, UNROUTABLE)],
)
def test_binary_keys(value: bytes, blob: bool, key: KeyValue | NoValue) -> None:
    assert bound_value(value, False, BINARY, blob, PLAIN) == key
    assert bound_value(value, True, BINARY, blob, PLAIN) is UNROUTABLE


# ── parameters among literals ──


@given(st.lists(st.sampled_from([b"?", b"1", b"'?'", b"x'3f'"]), max_size=8))
def test_parameters_are_numbered_in_turn(literals: list[bytes]) -> None:
    numbers, count = parameter_numbers(literals)
    assert count == literals.count(b"?") and len(numbers) == len(literals)
    assert [n for n in numbers if n >= 0] == list(range(count))
    assert all((number >= 0) == (literal == b"?") for number, literal in zip(numbers, literals, strict=True))


def prepared(*literals: bytes, modes: SqlModes = PLAIN) -> PreparedStatement:
    positions, count = parameter_numbers(list(literals))
    entry = CachedPlan(Plan(StatementKind.SELECT, Opcode.IN, Rung.ONE_SHARD, ""), [], [])
    return PreparedStatement(1, b"SELECT", entry, list(literals), positions, count, profile(0, None, ()), modes, 1)


class Someone:
    """As much of a client as a value reader needs."""

    def __init__(self, single_byte: bool = False) -> None:
        variables = (("character_set_client", "'latin1'"),) if single_byte else ()
        self.session = Session(1, "app", profile(0, None, variables), PLAIN)


def reading(statement: PreparedStatement, payload: bytes, client: Any = None) -> tuple[Execution, Any]:
    execution = open_execution(statement, payload, True)
    someone: Any = client or Someone()
    return execution, value_reader(someone, execution)


LONG, STRING, BLOB = FieldType.LONGLONG.value, FieldType.VAR_STRING.value, FieldType.BLOB.value


def test_values_come_from_the_text_and_from_the_packet() -> None:
    statement = prepared(b"7", b"?", b"'x '", b"?", b"?")
    payload = build_execute(1, [(LONG, False, 41), (STRING, False, b"bob "), (BLOB, False, b"\xff")])
    _, read = reading(statement, payload)
    assert [read(Value(i), INT) for i in (0, 1)] == [7, 41]
    assert [read(Value(i, True), INT) for i in (0, 1)] == [-7, -41]
    assert [read(Value(i), TEXT) for i in (2, 3, 4)] == [b"x", b"bob", UNROUTABLE]
    assert read(Value(4), BINARY) == b"\xff"


def test_types_bound_once_hold_for_later_executions() -> None:
    statement = prepared(b"?")
    reading(statement, build_execute(1, [(LONG, False, 5)]))
    again = b"\x17" + (1).to_bytes(4, "little") + b"\0\1\0\0\0" + b"\0" + b"\0" + (6).to_bytes(8, "little")
    assert reading(statement, again)[1](Value(0), INT) == 6


def test_a_null_parameter_matches_no_key() -> None:
    _, read = reading(prepared(b"?"), build_execute(1, [(LONG, False, None)]))
    assert read(Value(0), INT) is NULLVALUE


def test_long_data_is_taken_once() -> None:
    statement = prepared(b"?")
    statement.long_data = {0: bytearray(b"from the long data")}
    execution, read = reading(statement, build_execute(1, [(STRING, False, None)], long_data=[0]))
    assert read(Value(0), TEXT) == b"from the long data"
    assert execution.parameters.long_data == {0: b"from the long data"}
    assert statement.long_data is None


def test_a_single_byte_client_reads_ascii_only() -> None:
    payload = build_execute(1, [(STRING, False, "bøb".encode())])
    assert reading(prepared(b"?"), payload)[1](Value(0), TEXT) == "bøb".encode()
    assert reading(prepared(b"?"), payload, Someone(single_byte=True))[1](Value(0), TEXT) is UNROUTABLE


def test_a_broken_packet_is_an_error_of_the_statement() -> None:
    payload = build_execute(1, [(LONG, False, 5)])
    with pytest.raises(SqlError, match="Malformed") as caught:
        open_execution(prepared(b"?"), payload[:-12], True)
    assert caught.value.code == 1835


@pytest.mark.parametrize("size", [0, 5, MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 9])
def test_the_payload_of_several_packets(size: int) -> None:
    wire = packet(b"x" * size, 0)
    assert len(joined(wire)) == size
    assert len(first_packet(wire)) == min(size, MAX_PAYLOAD)
