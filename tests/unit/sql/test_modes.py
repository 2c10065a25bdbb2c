from __future__ import annotations

from dataclasses import replace

import pytest

from shardproxy.sql.modes import SqlModes


def test_default_reads_plain_mysql() -> None:
    assert SqlModes.parse("STRICT_TRANS_TABLES,NO_ZERO_DATE") == SqlModes()
    assert SqlModes.parse("") == SqlModes()


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("ANSI_QUOTES", "ansi_quotes"),
        ("NO_BACKSLASH_ESCAPES", "no_backslash_escapes"),
        ("PIPES_AS_CONCAT", "pipes_as_concat"),
        ("IGNORE_SPACE", "ignore_space"),
        ("HIGH_NOT_PRECEDENCE", "high_not"),
    ],
)
def test_one_mode_sets_one_field(name: str, field: str) -> None:
    assert SqlModes.parse(f"STRICT_ALL_TABLES, {name.lower()}") == replace(SqlModes(), **{field: True})


@pytest.mark.parametrize("name", ["ANSI", "DB2", "MAXDB", "POSTGRESQL"])
def test_combinations_expand(name: str) -> None:
    assert SqlModes.parse(name) == SqlModes(ansi_quotes=True, pipes_as_concat=True, ignore_space=True)


@pytest.mark.parametrize("name", ["ORACLE", "MSSQL"])
def test_other_grammars_are_marked(name: str) -> None:
    assert SqlModes.parse(name).foreign


def test_equal_modes_are_one_key() -> None:
    assert {SqlModes.parse("ansi"), SqlModes.parse("ANSI,ANSI_QUOTES")} == {SqlModes.parse("ANSI")}
