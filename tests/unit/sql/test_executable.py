"""Executable comments out of a text: what is left has the same tokens, and is left alone where that is not certain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.sql.executable import has_code, without_code
from shardproxy.sql.modes import SqlModes
from shardproxy.sql.tokens import tokenize


@pytest.mark.parametrize(
    ("sql", "mysql", "mariadb"),
    [
        (b"SELECT 1 /*! + 1 */", b"SELECT 1  + 1 ", b"SELECT 1  + 1 "),
        (b"SELECT 1/*!50000+1*/, 2", None, b"SELECT 1+1, 2"),
        (b"SELECT 1/*!50000+1 */, 2", b"SELECT 1+1 , 2", b"SELECT 1+1 , 2"),
        (b"SELECT 5 +/*!2147483648 */", b"SELECT 5 +83648 ", None),
        (b"SELECT 5 +/*!100100 1 + */ 7", b"SELECT 5 + 7", b"SELECT 5 + 1 +  7"),
        (b"SELECT a /*M! OR 1 */", b"SELECT a ", b"SELECT a  OR 1 "),
        (b"SELECT '/*!' /*!50000 , 2 */", b"SELECT '/*!'  , 2 ", b"SELECT '/*!'  , 2 "),
        (
            b"SELECT 1 /*c*/ /*!, 2 */ -- /*! x */",
            b"SELECT 1 /*c*/ , 2  -- /*! x */",
            b"SELECT 1 /*c*/ , 2  -- /*! x */",
        ),
        (b"/*!*/ SELECT 1", b" SELECT 1", b" SELECT 1"),
        (b"/*!99999 nothing */ SELECT 1", None, b" SELECT 1"),
        (b"/*!999999 nothing */ SELECT 1", b" SELECT 1", None),
        # What would grow together, what is never closed, what a version decides.
        (b"SELECT/*!1*/", None, None),
        (b"SELECT 1/*!2*/", None, None),
        (b"SELECT 1 -/*!-1*/", None, None),
        (b"SELECT t./*!a*/", None, None),
        (b"SELECT 5--/*M! - */ 1", None, None),
        (b"SELECT 5 --/*!999999 x */", None, None),
        (b"SELECT 1 /*! + 1", None, None),
        (b"SELECT 1 /*!80400 + 1 */", None, b"SELECT 1 "),
        (b"SELECT 'a /*! + 1 */", None, None),
        (b"SELECT 1 /*! + /*! 2 */ */", None, None),
    ],
)
def test_what_a_server_reads(sql: bytes, mysql: bytes | None, mariadb: bytes | None) -> None:
    assert has_code(sql)
    assert without_code(sql, SqlModes(), False) == (sql if mysql is None else mysql)
    assert without_code(sql, SqlModes(), True) == (sql if mariadb is None else mariadb)


def test_long_texts_are_not_looked_into() -> None:
    assert not has_code(b"SELECT '" + b"x" * 70_000 + b"' /*! + 1 */")
    assert not has_code(b"SELECT 1 /* ! */")


_PARTS = [
    b"SELECT ", b"1", b"a", b"'s'", b"`n`", b'"q"', b"+", b"-", b"<", b"=", b",", b"(", b")", b" ", b"/*!", b"*/",
    b"/*!50000", b"/*M!", b"/*!999999 ", b"-- x\n", b"/* c */", b"@v", b".", b"?",
]  # fmt: skip


@given(st.lists(st.sampled_from(_PARTS)), st.booleans())
def test_the_tokens_stay(parts: list[bytes], mariadb: bool) -> None:
    sql = b"".join(parts)
    read = without_code(sql, SqlModes(), mariadb)
    before, after = tokenize(sql, SqlModes(), mariadb), tokenize(read, SqlModes(), mariadb)
    if read != sql:
        assert not before.problem or after.problem
    if not before.problem and not after.problem:
        assert [t.text for t in before.tokens] == [t.text for t in after.tokens]
