"""Parameters of prepared statements as the protocol has them, for tests."""

from __future__ import annotations

from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.values import Value
from tests.proxy import SPLIT

Parameter = tuple[int, bool, Value]
FAR = SPLIT + 1  # a key on the second shard


def integer(value: int | None) -> Parameter:
    return (FieldType.LONGLONG, False, value)


def text(value: bytes | None) -> Parameter:
    return (FieldType.VAR_STRING, False, value)
