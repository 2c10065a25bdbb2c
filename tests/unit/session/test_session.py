"""A session's value, and the one test of the hot path that follows from it."""

from __future__ import annotations

from inspect import isgetsetdescriptor, ismemberdescriptor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.planner.cache import CachedPlan
from shardproxy.planner.plan import Opcode, PinReason, Plan, Rung, StatementKind
from shardproxy.session.profile import profile, with_schema, with_variables
from shardproxy.session.session import PreparedStatement, Session
from shardproxy.sql.modes import SqlModes

DEFAULT = SqlModes(pipes_as_concat=True)
UTF8 = tuple((name, "'utf8mb4'") for name in ("character_set_client", "character_set_connection"))
INITIAL = profile(0, "shop", UTF8)


def session() -> Session:
    return Session(7, "app", INITIAL, DEFAULT)


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.sampled_from([None, (b"BEGIN",), (b"BEGIN", b"SAVEPOINT a")])),
        st.tuples(st.just("shard"), st.integers(-1, 2)),
        st.tuples(st.just("next_transaction"), st.sampled_from([(), (b"SET TRANSACTION READ ONLY",)])),
        st.tuples(st.just("profile"), st.sampled_from([INITIAL, with_variables(INITIAL, {"autocommit": "0"})])),
        st.tuples(st.just("clear"), st.none()),
    ),
    max_size=8,
)


@given(CHANGES)
@settings(max_examples=100)
def test_simple_is_what_it_says_after_every_change(changes: list[tuple[str, object]]) -> None:
    changed = session()
    for name, value in changes:
        if name == "clear":
            changed.clear()
        elif name == "profile":
            changed.use_profile(value)  # type: ignore[arg-type]
        else:
            setattr(changed, name, value)
            changed.refresh()
        holds = changed.shard >= 0
        assert changed.autocommit == changed.profile.autocommit
        assert changed.in_transaction == (holds or changed.begin is not None)
        assert changed.simple == (
            changed.autocommit and not holds and changed.begin is None and changed.next_transaction == ()
        )


def test_a_new_session_is_simple() -> None:
    new = session()
    assert new.simple and new.autocommit and not new.in_transaction
    assert (new.insert_id, new.warnings, new.conditions, new.pins) == (0, 0, None, ())
    assert new.modes == DEFAULT


def test_a_session_that_begins_without_autocommit_is_not_simple() -> None:
    assert not Session(1, "app", with_variables(INITIAL, {"autocommit": "0"}), DEFAULT).simple


@pytest.mark.parametrize(
    ("variables", "modes"),
    [
        ({}, DEFAULT),
        ({"sql_mode": "''"}, SqlModes()),
        ({"sql_mode": "'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'"}, SqlModes(ansi_quotes=True, no_backslash_escapes=True)),
        ({"character_set_client": "'latin1'"}, SqlModes(pipes_as_concat=True, single_byte=True)),
        ({"character_set_connection": "'latin1'", "sql_mode": "''"}, SqlModes(single_byte=True)),
    ],
)
def test_texts_are_read_as_the_profile_says(variables: dict[str, str], modes: SqlModes) -> None:
    changed = session()
    changed.use_profile(with_variables(INITIAL, variables))
    assert changed.modes == modes
    changed.use_profile(INITIAL)
    assert changed.modes == DEFAULT


def test_a_reset_forgets_all_but_the_default_schema() -> None:
    used = session()
    used.use_profile(with_schema(with_variables(INITIAL, {"autocommit": "0", "sql_mode": "'ANSI_QUOTES'"}), "blog"))
    used.begin, used.shard, used.next_transaction = (b"BEGIN",), 1, (b"SET TRANSACTION READ ONLY",)
    used.insert_id, used.affected, used.warnings, used.conditions = 9, 3, 1, [(b"Note", b"1", b"x")]
    used.pin((PinReason.USER_VARIABLE,))
    used.add_statement(statement(used))
    used.clear()
    fresh = Session(7, "app", with_schema(INITIAL, "blog"), DEFAULT)
    # Its slots, and their like in the compiled class.
    names = [name for name, what in vars(Session).items() if ismemberdescriptor(what) or isgetsetdescriptor(what)]
    assert {"begin", "found", "pins", "profile", "warnings"} <= set(names)
    for name in names:
        if name not in ("initial", "_next_statement"):
            assert getattr(used, name) == getattr(fresh, name), name
    assert used.next_statement_id() == 2, "ids are not used again"


def test_pins_are_kept_once_in_order() -> None:
    pinned = session()
    pinned.pin((PinReason.PROCEDURE, PinReason.USER_VARIABLE))
    pinned.pin((PinReason.USER_VARIABLE, PinReason.HANDLER))
    assert pinned.pins == (PinReason.PROCEDURE, PinReason.USER_VARIABLE, PinReason.HANDLER)


def statement(of: Session) -> PreparedStatement:
    entry = CachedPlan(Plan(StatementKind.SELECT, Opcode.NONE, Rung.ONE_SHARD, "no table"), [], [])
    return PreparedStatement(of.next_statement_id(), b"SELECT 1", entry, [], [], 0, of.profile, of.modes, 1)


def test_statement_ids_are_never_zero_nor_all_ones_and_begin_again() -> None:
    counting = session()
    assert [counting.next_statement_id() for _ in range(3)] == [1, 2, 3]
    counting._next_statement = 0xFFFFFFFE
    assert [counting.next_statement_id() for _ in range(2)] == [0xFFFFFFFE, 1]


def test_statements_are_found_by_their_id() -> None:
    preparing = session()
    assert preparing.statements is None
    one, two = statement(preparing), statement(preparing)
    preparing.add_statement(one)
    preparing.add_statement(two)
    assert preparing.statements == {1: one, 2: two}
