from __future__ import annotations

from enum import IntEnum, IntFlag

import pytest

from shardproxy.protocol.mysql import constants
from shardproxy.protocol.mysql.constants import Cap, Com, FieldType, MariaDbCap, Status

from . import captured


@pytest.mark.parametrize("flags", [Cap, MariaDbCap, Status, constants.ColumnFlag])
def test_flags_are_single_different_bits(flags: type[IntFlag]) -> None:
    values = [member.value for member in flags.__members__.values()]
    assert len(set(values)) == len(values)
    assert all(value & (value - 1) == 0 for value in values)


@pytest.mark.parametrize("numbers", [Com, FieldType, constants.Collation])
def test_numbers_are_different(numbers: type[IntEnum]) -> None:
    assert len({member.value for member in numbers}) == len(numbers.__members__)


def test_capabilities_fill_all_bits() -> None:
    assert sum(Cap) == 2**32 - 1


def test_numbers_as_captured() -> None:
    assert captured.LIBMARIADB_EXECUTE[0] == Com.STMT_EXECUTE
    assert captured.CONNECTOR_CHANGE_USER[0] == Com.CHANGE_USER
    offered = int.from_bytes(captured.MYSQL_GREETING[27:29], "little") << 16  # the upper half, after version and status
    assert offered & Cap.DEPRECATE_EOF and offered & Cap.SESSION_TRACK and offered & Cap.QUERY_ATTRIBUTES
