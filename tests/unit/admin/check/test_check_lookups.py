"""Rules about lookup indexes."""

from __future__ import annotations

from dataclasses import replace

from shardproxy.admin.check.facts import Index, TableFacts
from shardproxy.admin.check.findings import Severity
from shardproxy.admin.check.keys import sharded_table
from shardproxy.admin.check.lookups import table_with_lookups
from shardproxy.topology.keys import KeyType
from shardproxy.topology.model import LookupIndex
from tests.unit.planner.world import CATALOG, SHOP

TABLE = replace(SHOP.tables["accounts"], lookups=(LookupIndex(("email",)), LookupIndex(("nick", "tenant"))))
KEYS = (
    Index("PRIMARY", True, "BTREE", ("uid",), ("uid",)),
    Index("by_email", True, "BTREE", ("email",), ("email",)),
    Index("by_tenant_nick", True, "BTREE", ("tenant", "nick"), ("tenant", "nick")),
)
FACTS = TableFacts(CATALOG.tables["shop", "accounts"], "InnoDB", "utf8mb4_general_ci", KEYS)


def test_a_table_whose_keys_are_kept_has_no_findings() -> None:
    assert list(table_with_lookups(SHOP, TABLE, FACTS)) == []
    assert not [f for f in sharded_table("shop.accounts", TABLE, KeyType.INT, FACTS) if "unique" in f.what]


def test_a_unique_key_without_index_is_warned_of_with_its_fix() -> None:
    found = sharded_table("shop.accounts", replace(TABLE, lookups=TABLE.lookups[:1]), KeyType.INT, FACTS)
    [finding] = [f for f in found if "unique" in f.what]
    assert finding.severity is Severity.WARNING
    assert 'lookups = ["tenant, nick"]' in finding.fix


def test_an_index_that_cannot_be_kept_is_an_error() -> None:
    [finding] = table_with_lookups(SHOP, replace(TABLE, lookups=(LookupIndex(("age",)),)), FACTS)
    assert finding.severity is Severity.ERROR
    assert "no unique key over age" in finding.what


def test_a_unique_key_over_the_beginning_of_values_is_an_error() -> None:
    short = replace(FACTS, indexes=(KEYS[0], replace(KEYS[1], parts=("email(10)",))))
    [finding] = table_with_lookups(SHOP, replace(TABLE, lookups=TABLE.lookups[:1]), short)
    assert "by_email (email(10)) is over the beginning" in finding.what


def test_cascades_are_warned_of() -> None:
    [finding] = table_with_lookups(SHOP, TABLE, replace(FACTS, foreign_keys=("fk (uid) → users (uid)",)))
    assert finding.severity is Severity.WARNING
    assert "cascade" in finding.what
