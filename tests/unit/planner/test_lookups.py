"""Which indexes can be kept, and texts about their entries."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardproxy.planner import lookup_text
from shardproxy.planner.lookup_index import index_of, parts_of
from shardproxy.planner.lookup_plan import EnteredRows, Index, LookedUp, PartKind
from shardproxy.planner.lookup_rows import found_row
from shardproxy.planner.plan import Spread, Value
from shardproxy.planner.statement import plan_statement
from shardproxy.router.route import evaluate, route
from shardproxy.topology.keys import KeyType, KeyValue
from shardproxy.topology.model import LookupIndex
from shardproxy.topology.schema import TableSchema
from tests.unit.planner.world import CATALOG, SHOP, SNAPSHOT, column, context

TABLE = SHOP.tables["accounts"]
SCHEMA = CATALOG.tables["shop", "accounts"]


def index(*columns: str) -> Index:
    found = index_of(SHOP, TABLE, LookupIndex(columns), SCHEMA)
    assert isinstance(found, Index), found
    return found


def test_an_index_has_the_parts_of_its_unique_key() -> None:
    found = index("nick", "Tenant")
    assert [part.column for part in found.parts] == ["tenant", "nick"]
    assert [part.kind for part in found.parts] == [PartKind.INTEGER, PartKind.TEXT]
    assert (found.name, found.unique) == ("accounts(nick,Tenant)", "by_tenant_nick")


@pytest.mark.parametrize(("columns", "why"), [
    (("nobody",), "no column nobody"),
    (("age",), "no unique key over age"),
    (("tenant",), "no unique key over tenant"),
])  # fmt: skip
def test_an_index_needs_a_unique_key_over_its_columns(columns: tuple[str, ...], why: str) -> None:
    found = index_of(SHOP, TABLE, LookupIndex(columns), SCHEMA)
    assert isinstance(found, str)
    assert why in found


@pytest.mark.parametrize(("kind", "more", "fine"), [
    ("bigint unsigned", {}, True),
    ("int(5) unsigned zerofill", {}, False),
    ("varchar(10)", {"charset": "utf8mb4", "collation": "utf8mb4_0900_ai_ci"}, True),
    ("char(10)", {"charset": "ascii", "collation": "ascii_bin"}, True),
    ("varchar(10)", {"charset": "utf8mb4", "collation": "uca1400_ai_ci"}, True),
    ("varchar(10)", {"charset": "utf8mb4", "collation": "uca1400_as_cs"}, False),
    ("varchar(10)", {"charset": "gbk", "collation": "gbk_chinese_ci"}, False),
    ("text", {"charset": "utf8mb4", "collation": "utf8mb4_bin"}, False),
    ("binary(16)", {}, True),
    ("double", {}, False),
    ("datetime", {}, False),
    ("int", {"extra": "STORED GENERATED"}, False),
])  # fmt: skip
def test_types(kind: str, more: dict[str, str], fine: bool) -> None:
    schema = TableSchema("d", "t", (column("c", kind, **more),))
    assert isinstance(parts_of(schema, ("c",)), tuple) == fine


def test_texts_hold_whatever_names_and_values_are() -> None:
    odd = replace(index("email"), name="a`b(c)", table="a`b")
    assert lookup_text.name(odd.table) == b"`a``b`"
    read = lookup_text.entry_read(odd, b"'\\")
    assert b"x'275c'" in read
    assert b"a`b" not in read
    [one] = [lookup_text.entries_insert([(odd, b"v", b"7", 5)])]
    assert one.endswith(
        b"VALUES (_utf8mb4 x'73686f70', _utf8mb4 x'6160622863 29', x'76', x'37', 5)".replace(b" 29", b"29")
    )


def test_a_row_out_of_its_columns() -> None:
    """Padded text without its blanks, a NULL that has no entry, what messages show."""
    email, token, both = index("email"), index("token"), index("tenant", "nick")
    blanks = {"utf8mb4_general_ci": b"\x00 ", "latin1_swedish_ci": b" "}
    wide = [b"7", b"\x00A\x00 \x00 ", b"a  ", b"\x00\xff", b"12", b"N ", b"n", b"7"]
    row = found_row(wide, (email, token, both), (email.parts[0],), blanks)
    assert row.key == b"7"
    assert row.values == (b"\x00A", b"\x00\xff", b"\x00\x00\x00\x0212\x00\x00\x00\x01N")
    assert row.shown == (b"a  ", b"\\x00\\xFF", b"12-n")
    assert row.primary == (b"7",)
    missing = found_row([b"7", None, None, None, b"1", None, None], (email, token, both), (), blanks)
    assert missing.values == (None, None, None)


def test_conditions_lead_to_the_shards_that_the_index_names() -> None:
    plan = plan_statement(b"SELECT * FROM accounts WHERE email = 'a' AND age = 5", context())
    [looked] = plan.lookups
    assert isinstance(looked, LookedUp)
    assert looked.values == ((Value(0),),)

    def read(value: Value, key_type: KeyType) -> KeyValue:
        raise AssertionError("no key is in the statement")

    assert route(plan, read, SNAPSHOT).shards == (0, 1)
    assert route(plan, read, SNAPSHOT, resolved={looked: frozenset({1})}).shards == (1,)
    assert len(route(plan, read, SNAPSHOT, resolved={looked: frozenset()}).shards) == 1
    assert evaluate(looked, SHOP, read) == {0, 1}


def test_long_inserts_enter_every_row() -> None:
    rows = ", ".join(f"({i}, 'u{i}')" for i in range(40))
    plan = plan_statement(f"INSERT INTO accounts (uid, email) VALUES {rows}, (99, NULL)".encode(), context())
    assert plan.spread is Spread.WRITE
    assert isinstance(plan.entries, EnteredRows)
    each = list(plan.entries.each())
    assert len(each) == 41
    assert [row[0][0].index + shift for row, shift in each[:-1] if row[0] is not None] == list(range(1, 80, 2))
    assert each[-1][0] == (None, None, None)
