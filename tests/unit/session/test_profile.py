"""Whatever state a connection is in, the transition brings it to the wanted one, and no further."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.protocol.mysql.constants import Cap
from shardproxy.session.profile import (
    CARRIED_CAPABILITIES,
    CHARSET_VARIABLES,
    UTF8MB4_GENERAL_CI,
    Charsets,
    Profile,
    gathers,
    is_wide,
    profile,
    reachable,
    transition,
    unreadable,
    with_schema,
    with_variables,
    without,
)

COLLATIONS = {
    8: ("latin1", "latin1_swedish_ci"),
    45: ("utf8mb4", "utf8mb4_general_ci"),
    46: ("utf8mb4", "utf8mb4_bin"),
    47: ("latin1", "latin1_bin"),
    300: ("utf8mb4", "utf8mb4_far_ci"),
}
DEFAULT_COLLATION = {"latin1": "latin1_swedish_ci", "utf8mb4": "utf8mb4_general_ci"}
CHARSET_OF = {collation: charset for charset, collation in COLLATIONS.values()}
TAKEN = {"autocommit": "1", "sql_auto_is_null": "0"}  # of what is taken for granted
OTHERS = (*TAKEN, "lc_time_names", "sql_mode", "time_zone")

literals = st.sampled_from(["0", "1", "''", "'a,b'", "'it''s, @@SESSION.x=1'", "NULL"])
charsets = st.sampled_from(sorted(DEFAULT_COLLATION))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Any state that a server can be in: its collation belongs to its connection character set."""
    collation = draw(st.sampled_from(sorted(CHARSET_OF)))
    same = draw(st.booleans())
    connection = CHARSET_OF[collation]
    variables = {
        "character_set_client": f"'{connection if same else draw(charsets)}'",
        "character_set_connection": f"'{connection}'",
        "character_set_results": f"'{connection}'"
        if same
        else draw(charsets.map(lambda c: f"'{c}'") | st.just("NULL")),
        "collation_connection": f"'{collation}'",
    }
    variables |= draw(st.dictionaries(st.sampled_from(OTHERS), literals))
    schema = draw(st.sampled_from([None, "shop", "blog"]))
    capabilities = draw(st.sampled_from([0, int(Cap.DEPRECATE_EOF), CARRIED_CAPABILITIES]))
    return profile(capabilities, schema, tuple(sorted(variables.items())))


class ServerSession:
    """What a server does with its session variables when it is told to set some."""

    def __init__(self, state: Profile) -> None:
        self.schema = state.schema
        self.variables = dict.fromkeys(OTHERS, "the global value") | TAKEN | dict(state.variables)

    def apply(self, schema: str | None, statement: str | None) -> None:
        if schema is not None:
            self.schema = schema
        if statement is not None:
            assert statement.startswith("SET ")
            for assignment in re.findall(r"(?:'(?:[^']|'')*'|[^,'])+", statement[4:]):
                self._assign(assignment.strip())

    def _assign(self, assignment: str) -> None:
        names = re.fullmatch(r"NAMES '(\w+)' COLLATE '(\w+)'", assignment)
        if names:
            charset, collation = names.groups()
            assert CHARSET_OF[collation] == charset, "COLLATION is not valid for CHARACTER SET"
            self.variables.update(dict.fromkeys(CHARSET_VARIABLES[:3], f"'{charset}'"))
            self.variables["collation_connection"] = f"'{collation}'"
            return
        name, _, literal = assignment.removeprefix("@@SESSION.").partition("=")
        assert name in self.variables
        self.variables[name] = "the global value" if literal == "DEFAULT" else literal
        if name == "character_set_connection":
            self.variables["collation_connection"] = f"'{DEFAULT_COLLATION[literal.strip(chr(39))]}'"
        elif name == "collation_connection":
            self.variables["character_set_connection"] = f"'{CHARSET_OF[literal.strip(chr(39))]}'"


@given(st.lists(profiles(), min_size=2, max_size=4))
@settings(max_examples=80)
def test_transitions_give_the_wanted_state(path: list[Profile]) -> None:
    now = path[0]
    server = ServerSession(now)
    for wanted in path[1:]:
        assert reachable(now, wanted) == (
            now.capabilities == wanted.capabilities and (now.schema is None or wanted.schema is not None)
        )
        if not reachable(now, wanted):
            continue
        server.apply(*transition(now, wanted))
        fresh = ServerSession(wanted)
        assert (server.schema, server.variables) == (fresh.schema, fresh.variables)
        now = wanted


@given(profiles(), profiles())
@settings(max_examples=50)
def test_nothing_is_sent_for_what_is_there_already(old: Profile, new: Profile) -> None:
    assert transition(old, old) == (None, None)
    schema, statement = transition(old, new)
    assert (schema is None) == (new.schema in (None, old.schema))
    assert (statement is None) == (old.variables == new.variables)
    for name, literal in old.variables:
        if new.value(name) == literal and name not in CHARSET_VARIABLES:
            assert statement is None or f"@@SESSION.{name}={literal}" not in statement.replace(
                "'it''s, @@SESSION.x=1'", ""
            )


@given(profiles(), profiles())
@settings(max_examples=50)
def test_equal_profiles_are_one_object(one: Profile, other: Profile) -> None:
    assert profile(one.capabilities, one.schema, one.variables) is one
    assert with_schema(with_schema(one, "elsewhere"), one.schema) is one
    assert with_variables(one, {}) is one
    assert with_variables(with_variables(one, {"autocommit": "7"}), dict(one.variables)).value("autocommit") in (
        one.value("autocommit"),
        "7",
    )
    same = (one.capabilities, one.schema, one.variables) == (other.capabilities, other.schema, other.variables)
    assert same == (one is other)


def test_capabilities_that_make_no_difference_are_dropped() -> None:
    assert profile(0xFFFFFFFF, None, ()) is profile(CARRIED_CAPABILITIES, None, ())
    assert profile(int(Cap.SSL), None, ()) is profile(0, None, ())


@pytest.mark.parametrize(("literal", "on"), [(None, True), ("1", True), ("0", False), ("'OFF'", False)])
def test_autocommit(literal: str | None, on: bool) -> None:
    variables = () if literal is None else (("autocommit", literal),)
    assert profile(0, None, variables).autocommit is on


# ── handshake ids ──

CHARSETS = Charsets(COLLATIONS)


@pytest.mark.parametrize("ident", [ident for ident in COLLATIONS if ident < 256])
def test_a_new_connection_begins_with_the_wanted_collation(ident: int) -> None:
    wanted = profile(0, "shop", CHARSETS.variables(ident))
    assert CHARSETS.handshake_id(wanted) == ident
    assert CHARSETS.fresh(wanted, ident) is wanted
    assert wanted.value("character_set_results") == f"'{COLLATIONS[ident][0]}'"
    assert wanted.value("collation_connection") == f"'{COLLATIONS[ident][1]}'"


def test_ids_that_do_not_fit_or_are_unknown_become_utf8mb4() -> None:
    far = profile(0, None, CHARSETS.variables(300))
    assert far.value("collation_connection") == "'utf8mb4_far_ci'"
    assert CHARSETS.handshake_id(far) == UTF8MB4_GENERAL_CI
    assert CHARSETS.handshake_id(profile(0, None, ())) == UTF8MB4_GENERAL_CI
    assert CHARSETS.variables(9999) == CHARSETS.variables(UTF8MB4_GENERAL_CI)
    assert dict(Charsets({}).variables(9999))["collation_connection"] == "'utf8mb4_general_ci'"


@given(profiles())
@settings(max_examples=50)
def test_a_new_connection_can_be_brought_to_any_profile(wanted: Profile) -> None:
    fresh = CHARSETS.fresh(wanted, CHARSETS.handshake_id(wanted))
    assert reachable(fresh, wanted)
    server = ServerSession(fresh)
    server.apply(*transition(fresh, wanted))
    assert server.variables == ServerSession(wanted).variables


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"sql_mode": "''"}, False),
        ({"sql_select_limit": "5"}, True),
        ({"sql_select_limit": "18446744073709551615"}, False),
        ({"max_sort_length": "1024", "sql_buffer_result": "0"}, False),
        ({"max_sort_length": "64"}, True),
        ({"sql_buffer_result": "1"}, True),
    ],
)
def test_variables_under_which_answers_cannot_be_put_together(variables: dict[str, str], expected: bool) -> None:
    changed = with_variables(profile(0, None, ()), variables)
    assert gathers(changed) is expected
    assert without(changed, variables) is profile(0, None, ())


def test_utf8mb3_on_the_way_loses_characters_of_four_bytes() -> None:
    for client, connection, three_bytes, utf8 in (
        ("utf8mb4", "utf8mb4", False, True),
        ("utf8mb3", "utf8mb4", True, True),
        ("utf8mb4", "utf8mb3", True, True),
        ("utf8", "utf8", True, True),
        ("latin1", "utf8mb4", False, False),
        ("ascii", "utf8mb4", False, False),
        ("utf8mb4", "ascii", False, False),
    ):
        named = {"character_set_client": f"'{client}'", "character_set_connection": f"'{connection}'"}
        found = with_variables(profile(0, None, ()), named)
        assert (found.three_bytes, found.reads_utf8) == (three_bytes, utf8)


def test_wide_character_sets_of_the_connection_are_not_supported() -> None:
    for charset in ("ucs2", "utf16", "utf16le", "utf32"):
        wanted = with_variables(profile(0, None, ()), {"character_set_connection": f"'{charset}'"})
        assert is_wide(wanted)
        assert charset in unreadable(wanted)
    assert not is_wide(profile(0, None, ()))
