"""USE, KILL, SHOW WARNINGS and SET are read as the servers read them, however they are written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.sql.modes import SqlModes
from shardproxy.sql.session_text import (
    CARRIED,
    Kill,
    WarningsRequest,
    assigned_variables,
    parse_kill,
    parse_savepoint,
    parse_show_warnings,
    parse_use,
)

PLAIN = SqlModes()
ANSI = SqlModes(ansi_quotes=True)
LITERAL = SqlModes(no_backslash_escapes=True)
CHARSET = ("character_set_client", "character_set_connection", "character_set_results", "collation_connection")
BLANKS = st.sampled_from([" ", "  ", "\t", "\n", "/* , x=1 */", " -- a, b=2\n", "# '\n"])


@st.composite
def spaced(draw: st.DrawFn, *words: str) -> bytes:
    """The words with odd blanks and comments between them, in any case where `~` stands before a word."""
    text = draw(st.sampled_from(["", " ", "/* first */"]))
    for word in words:
        cased = draw(st.sampled_from([word.upper(), word.lower(), word.title()])) if word[0] == "~" else word
        text += cased.removeprefix("~") + draw(BLANKS)
    return (text + draw(st.sampled_from(["", ";", " ; ;"]))).encode()


# ── USE ──


@given(st.data())
@settings(max_examples=50)
def test_use(data: st.DataObject) -> None:
    written, name, modes = data.draw(
        st.sampled_from([("shop", "shop", PLAIN), ("`my shop`", "my shop", PLAIN), ("`a``b`", "a`b", PLAIN)])
        | st.just(('"Shop"', "Shop", ANSI))
    )
    assert parse_use(data.draw(spaced("~use", written)), modes, False) == name


def test_use_in_a_comment_that_mariadb_executes() -> None:
    assert parse_use(b"USE /*M! shop */", PLAIN, True) == "shop"


# ── savepoints ──


@given(st.data())
@settings(max_examples=50)
def test_savepoints(data: st.DataObject) -> None:
    forms = [["~savepoint"], ["~release", "~savepoint"], ["~rollback", "~to"], ["~rollback", "~work", "~to"]]
    forms.append(["~rollback", "~to", "~savepoint"])
    form = data.draw(st.sampled_from(forms))
    written, name = data.draw(st.sampled_from([("a", "a"), ("`b c`", "b c"), ("`savepoint`", "savepoint")]))
    assert parse_savepoint(data.draw(spaced(*form, written)), PLAIN) == (form[0][1:].upper(), name)


# ── KILL ──


@given(st.data())
@settings(max_examples=50)
def test_kill(data: st.DataObject) -> None:
    ident = data.draw(st.integers(0, 2**64 - 1))
    hard = data.draw(st.sampled_from([[], ["~hard"], ["~soft"]]))
    what = data.draw(st.sampled_from([[], ["~connection"], ["~query"]]))
    sql = data.draw(spaced("~kill", *hard, *what, str(ident)))
    assert parse_kill(sql, PLAIN, False) == Kill(ident, what == ["~query"])


@pytest.mark.parametrize(
    "sql",
    [
        "KILL",
        "KILL QUERY",
        "KILL USER bob",
        "KILL QUERY ID 5",
        "KILL -5",
        "KILL 5 6",
        "KILL '5'",
        "KILL `5`",
        "KILL 5.0",
        "KILL 0x5",
        "KILL ²",
        "KILL ٣",
        "KILL @a",
        "KILL " + "9" * 5000,
    ],
)
def test_other_forms_of_kill(sql: str) -> None:
    assert parse_kill(sql.encode(), PLAIN, False) is None


# ── SHOW WARNINGS ──


@given(st.data())
@settings(max_examples=50)
def test_show_warnings(data: st.DataObject) -> None:
    what = data.draw(st.sampled_from(["~warnings", "~errors"]))
    form, offset, limit = data.draw(
        st.sampled_from(
            [
                ([], 0, None),
                (["~limit", "7"], 0, 7),
                (["~limit", "3", ",", "7"], 3, 7),
                (["~limit", "7", "~offset", "3"], 3, 7),
            ]
        )
    )
    sql = data.draw(spaced("~show", what, *form))
    assert parse_show_warnings(sql, PLAIN, False) == WarningsRequest(what == "~errors", False, offset, limit)


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        (b"SHOW COUNT(*) WARNINGS", WarningsRequest(False, True)),
        (b"show count( * ) errors ;", WarningsRequest(True, True)),
        (b"SHOW WARNINGS LIMIT 5 -- only", WarningsRequest(False, False, 0, 5)),
        (b"SHOW WARNINGS -- LIMIT 5", WarningsRequest(False, False)),
        (b"SHOW WARNINGS /* LIMIT 5 */", WarningsRequest(False, False)),
        (b"SHOW WARNINGS LIMIT/**/5", WarningsRequest(False, False, 0, 5)),
        (b"SHOW WARNINGS /*! LIMIT 5 */", WarningsRequest(False, False, 0, 5)),
        (b"SHOW WARNINGS LIMIT 18446744073709551615", WarningsRequest(False, False, 0, 2**64 - 1)),
    ],
)
def test_show_warnings_with_comments(sql: bytes, wanted: WarningsRequest) -> None:
    assert parse_show_warnings(sql, PLAIN, False) == wanted


@pytest.mark.parametrize(
    "rest",
    [
        "WHERE 1",
        "LIMIT",
        "LIMIT -1",
        "LIMIT 1.5",
        "LIMIT 'a'",
        "LIMIT 1,",
        "LIMIT 1 2",
        "LIMIT 1, 2, 3",
        "ERRORS",
        "LIMIT " + "9" * 5000,
    ],
)
def test_what_is_no_show_warnings(rest: str) -> None:
    assert parse_show_warnings(f"SHOW WARNINGS {rest}".encode(), PLAIN, False) is None


def test_a_count_has_no_limit() -> None:
    assert parse_show_warnings(b"SHOW COUNT(*) WARNINGS LIMIT 1", PLAIN, False) is None


# ── SET ──

NAMES = st.sampled_from([*sorted(CARRIED - set(CHARSET)), "profiling", "Max_Error_Count"])
TARGETS = st.one_of(
    st.tuples(
        st.sampled_from(["{}", "`{}`", "@@{}", "@@session.{}", "@@LOCAL.`{}`", "session {}", "LOCAL `{}`"]), NAMES
    ).map(lambda made: ([made[0].format(made[1]), "="], (made[1].lower(),))),
    st.sampled_from([["@a", ":="], ["@`a`", "="]]).map(lambda words: (words, (words[0].lower(),))),
    st.sampled_from([["~names"], ["~character", "~set"], ["~charset"]]).map(lambda words: (words, CHARSET)),
)
VALUES = st.sampled_from(
    [
        "1",
        "'a, sql_mode=1'",
        '"b, c"',
        "DEFAULT",
        "concat(@@sql_mode, ',', 'X')",
        "(1 IN (2, 3)) + 4",
        "'it''s, '",
        "-1",
        "'\\', time_zone='",
    ]
)


@given(st.data())
@settings(max_examples=80)
def test_what_a_set_assigns(data: st.DataObject) -> None:
    words: list[str] = []
    expected: dict[str, None] = {}
    for i in range(data.draw(st.integers(1, 4))):
        target, names = data.draw(TARGETS)
        words += [*([","] if i else []), *target, data.draw(VALUES)]
        expected |= dict.fromkeys(names)
    sql = data.draw(spaced("~set", *words))
    assert assigned_variables(sql, PLAIN, False) == tuple(expected)


def test_quotes_are_read_in_the_sessions_mode() -> None:
    assert assigned_variables(b"SET \"autocommit\" = 0, sql_mode = 'x'", ANSI, False) == ("autocommit", "sql_mode")
    sql = b"SET group_concat_max_len = 9 + LENGTH('\\'), autocommit = 0"
    assert assigned_variables(sql, LITERAL, False) == ("group_concat_max_len", "autocommit")


def test_comments_that_the_server_executes_assign_too() -> None:
    sql = b"SET time_zone = 'UTC' /*M! , autocommit = 0 */ /*! , sql_mode = '' */"
    assert assigned_variables(sql, PLAIN, True) == ("time_zone", "autocommit", "sql_mode")
    assert assigned_variables(sql, PLAIN, False) == ("time_zone", "sql_mode")


@pytest.mark.parametrize("mariadb", [False, True])
def test_set_session_transaction(mariadb: bool) -> None:
    names = ("tx_isolation", "tx_read_only") if mariadb else ("transaction_isolation", "transaction_read_only")
    for scope in (b"SESSION", b"local"):
        sql = b"SET " + scope + b" TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY"
        assert assigned_variables(sql, PLAIN, mariadb) == names
