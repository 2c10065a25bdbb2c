"""Hypothesis strategies for every message: what can be built, so what a parser must read back."""

from __future__ import annotations

import math
from decimal import Decimal

from hypothesis import strategies as st

from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.commands import (
    ChangeUser,
    FieldList,
    InitDb,
    PrepareOk,
    SetOption,
    StmtClose,
    StmtFetch,
    StmtPrepare,
    StmtReset,
    StmtSendLongData,
)
from shardproxy.protocol.mysql.constants import Cap, FieldType
from shardproxy.protocol.mysql.handshake import AuthMoreData, AuthSwitch, Greeting, HandshakeResponse, SslRequest
from shardproxy.protocol.mysql.values import DateTime, Time, Value

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
u64 = st.integers(0, 2**64 - 1)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
name_bytes = st.binary(max_size=20).map(lambda value: value.replace(b"\0", b""))
nonces = st.lists(st.integers(1, 255), min_size=20, max_size=20).map(bytes)
attributes = st.dictionaries(names, names, max_size=4)
long_strings = st.one_of(st.binary(max_size=40), st.integers(240, 70_000).map(lambda length: b"v" * length))

_BASE = (Cap.PROTOCOL_41 | Cap.SECURE_CONNECTION).value
ZSTD = Cap.ZSTD_COMPRESSION.value


@st.composite
def greetings(draw: st.DrawFn) -> Greeting:
    capabilities = draw(u32) | _BASE
    extended = 0 if capabilities & Cap.LONG_PASSWORD.value else draw(u32)
    plugin = draw(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30))
    return Greeting(
        server_version=draw(names),
        connection_id=draw(u32),
        nonce=draw(nonces),
        capabilities=capabilities,
        charset=draw(u8),
        status=draw(u16),
        auth_plugin=plugin if capabilities & Cap.PLUGIN_AUTH.value else "",
        extended=extended,
    )


@st.composite
def handshake_responses(draw: st.DrawFn) -> HandshakeResponse:
    capabilities = draw(u32) | Cap.PROTOCOL_41.value
    if capabilities & Cap.PLUGIN_AUTH_LENENC.value:
        auth_response = draw(st.binary(max_size=400))
    elif capabilities & Cap.SECURE_CONNECTION.value:
        auth_response = draw(st.binary(max_size=255))
    else:
        auth_response = draw(name_bytes)
    return HandshakeResponse(
        user=draw(names),
        auth_response=auth_response,
        database=draw(names) or None if capabilities & Cap.CONNECT_WITH_DB.value else None,
        auth_plugin=draw(names) if capabilities & Cap.PLUGIN_AUTH.value else "",
        capabilities=capabilities,
        charset=draw(u8),
        max_packet=draw(u32),
        attributes=draw(attributes) if capabilities & Cap.CONNECT_ATTRS.value else {},
        extended=0 if capabilities & Cap.LONG_PASSWORD.value else draw(u32),
        zstd_level=draw(u8) if capabilities & ZSTD else 0,
    )


ssl_requests = st.builds(SslRequest, u32.map(lambda caps: caps | Cap.SSL.value), u32, u8)
auth_switches = st.builds(AuthSwitch, names, nonces)
auth_more_data = st.builds(AuthMoreData, st.binary(max_size=300))

columns = st.builds(
    ColumnDefinition,
    name=st.binary(max_size=300),
    type=u8,
    charset=u16,
    length=u32,
    flags=u16,
    decimals=u8,
    schema=st.binary(max_size=30),
    table=st.binary(max_size=30),
    org_table=st.binary(max_size=30),
    org_name=st.binary(max_size=30),
    catalog=st.binary(max_size=5),
)

CHANGE_USER_CAPABILITIES = (Cap.PLUGIN_AUTH | Cap.CONNECT_ATTRS).value
change_users = st.one_of(
    st.builds(ChangeUser, names, st.binary(max_size=255), names.map(lambda name: name or None)),
    st.builds(
        ChangeUser,
        names,
        st.binary(max_size=255),
        names.map(lambda name: name or None),
        u16,
        names,
        attributes,
    ),
)
SimpleCommand = (
    InitDb | FieldList | SetOption | StmtPrepare | StmtSendLongData | StmtClose | StmtReset | StmtFetch | PrepareOk
)
simple_commands: st.SearchStrategy[SimpleCommand] = st.one_of(
    st.builds(InitDb, st.binary(max_size=70)),
    st.builds(FieldList, name_bytes, name_bytes),
    st.builds(SetOption, u16),
    st.builds(StmtPrepare, st.binary(max_size=300)),
    st.builds(PrepareOk, u32, u16, u16, u16),
    st.builds(StmtSendLongData, u32, u16, st.binary(max_size=300)),
    st.builds(StmtClose, u32),
    st.builds(StmtReset, u32),
    st.builds(StmtFetch, u32, u32),
)

# --- typed values ---

_WIDTHS = {
    FieldType.TINY: 1,
    FieldType.SHORT: 2,
    FieldType.YEAR: 2,
    FieldType.LONG: 4,
    FieldType.INT24: 4,
    FieldType.LONGLONG: 8,
}
_STRINGS = [
    FieldType.VARCHAR,
    FieldType.BIT,
    FieldType.VECTOR,
    FieldType.JSON,
    FieldType.ENUM,
    FieldType.SET,
    FieldType.TINY_BLOB,
    FieldType.MEDIUM_BLOB,
    FieldType.LONG_BLOB,
    FieldType.BLOB,
    FieldType.VAR_STRING,
    FieldType.STRING,
    FieldType.GEOMETRY,
]
datetimes = st.builds(DateTime, u16, u8, u8, u8, u8, u8, u32)
times = st.builds(Time, st.booleans(), u32, u8, u8, u8, u32)
decimals = st.builds(
    lambda digits, scale: Decimal(digits).scaleb(-scale), st.integers(-(10**28) + 1, 10**28 - 1), st.integers(0, 28)
)

Typed = tuple[int, bool, Value]


@st.composite
def _integers(draw: st.DrawFn) -> Typed:
    kind, width = draw(st.sampled_from(sorted(_WIDTHS.items())))
    unsigned = draw(st.booleans())
    bits = 8 * width
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return kind.value, unsigned, draw(st.integers(low, high))


integer_values = _integers()
typed_values: st.SearchStrategy[Typed] = st.one_of(
    integer_values,
    st.tuples(st.just(FieldType.FLOAT.value), st.just(False), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just(FieldType.DOUBLE.value), st.just(False), st.floats(allow_nan=False)),
    st.tuples(
        st.sampled_from([FieldType.DATE.value, FieldType.DATETIME.value, FieldType.TIMESTAMP.value]),
        st.just(False),
        datetimes,
    ),
    st.tuples(st.just(FieldType.TIME.value), st.just(False), times),
    st.tuples(st.sampled_from([FieldType.DECIMAL.value, FieldType.NEWDECIMAL.value]), st.just(False), decimals),
    st.tuples(st.sampled_from([member.value for member in _STRINGS]), st.just(False), long_strings),
)
nullable_values: st.SearchStrategy[Typed] = st.one_of(
    typed_values,
    typed_values.map(lambda typed: (typed[0], typed[1], None)),
    st.just((FieldType.NULL.value, False, None)),
)


def same_value(left: Value, right: Value) -> bool:
    """Equality that keeps 0.0 and -0.0, and 1 and 1.0, apart."""
    if isinstance(left, float) and isinstance(right, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return type(left) is type(right) and left == right
