"""Profiles: what connections are brought to, and what settles how a text is read."""

from __future__ import annotations

import pytest

from shardproxy.session.profile import (
    Profile,
    charset_assignments,
    profile,
    read_as,
    statement_key,
    transition,
    with_variables,
)

CHARSET = (
    ("character_set_client", "'utf8mb4'"),
    ("character_set_connection", "'utf8mb4'"),
    ("character_set_results", "'utf8mb4'"),
    ("collation_connection", "'utf8mb4_bin'"),
)


def made(schema: str | None = "main", **variables: str) -> Profile:
    return profile(0, schema, tuple(sorted({**dict(CHARSET), **variables}.items())))


def test_one_character_set_for_all_is_set_by_names_so_that_results_have_its_collation() -> None:
    assert charset_assignments(made()) == ["NAMES 'utf8mb4' COLLATE 'utf8mb4_bin'"]
    other = made(collation_connection="'utf8mb4_general_ci'", sql_mode="''")
    wanted = "SET NAMES 'utf8mb4' COLLATE 'utf8mb4_general_ci', @@SESSION.sql_mode=''"
    assert transition(made(), other) == (None, wanted)


def test_different_character_sets_are_set_one_by_one() -> None:
    assert charset_assignments(made(character_set_results="NULL")) == [
        "@@SESSION.character_set_client='utf8mb4'",
        "@@SESSION.character_set_connection='utf8mb4'",
        "@@SESSION.character_set_results=NULL",
        "@@SESSION.collation_connection='utf8mb4_bin'",
    ]


@pytest.mark.parametrize(
    "change", [{"sql_mode": "'ANSI_QUOTES'"}, {"character_set_client": "'latin1'"}, {"schema": "other"}]
)
def test_a_statement_is_another_under_what_changes_its_meaning(change: dict[str, str]) -> None:
    assert statement_key(made(), b"SELECT 1") != statement_key(made(**change), b"SELECT 1")


def test_a_statement_is_the_same_under_what_does_not() -> None:
    assert statement_key(made(), b"SELECT 1") == statement_key(made(autocommit="0"), b"SELECT 1")
    assert statement_key(made(), b"SELECT 1") != statement_key(made(), b"SELECT 2")


def test_read_as_changes_how_texts_are_read_and_nothing_else() -> None:
    now = made("now", autocommit="0", sql_mode="'ANSI_QUOTES'", time_zone="'+01:00'")
    then = made("then", character_set_client="'latin1'")
    assert read_as(now, then) is made("then", character_set_client="'latin1'", autocommit="0", time_zone="'+01:00'")
    assert read_as(now, made(None)).schema == "now"
    assert read_as(now, with_variables(now, {"autocommit": "1"})) is now


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, True),
        ({"character_set_client": "'utf8mb3'"}, True),
        ({"character_set_client": "'latin1'"}, False),
        ({"character_set_client": "'ascii'"}, False),
        ({"character_set_connection": "'latin1'"}, False),
    ],
)
def test_texts_are_utf8_only_when_no_conversion_can_lose_characters(variables: dict[str, str], expected: bool) -> None:
    assert made(**variables).reads_utf8 is expected
