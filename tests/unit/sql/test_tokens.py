from __future__ import annotations

import pytest
from hypothesis import given

from shardproxy.sql.digest import literal_spans
from shardproxy.sql.modes import SqlModes
from shardproxy.sql.tokens import LITERAL_KINDS, Token, TokenKind, tokenize
from tests.unit.sql.lexer import Lexer
from tests.unit.sql.test_digest import MODES, TEXTS

PLAIN = SqlModes()


def tokens(sql: bytes, modes: SqlModes = PLAIN, mariadb: bool = False) -> list[Token]:
    stream = tokenize(sql, modes, mariadb)
    assert stream.problem == ""
    return list(stream.tokens)


def test_kinds_and_texts() -> None:
    found = tokens(b"SELECT `a``b`.c, t.5x, -.5, x'41' <=> ? := @a @@global.b N'c' b'01' 1e5")
    assert [(t.kind, t.text) for t in found] == [
        (TokenKind.WORD, "SELECT"),
        (TokenKind.NAME, "a`b"),
        (TokenKind.SIGN, "."),
        (TokenKind.WORD, "c"),
        (TokenKind.SIGN, ","),
        (TokenKind.WORD, "t"),
        (TokenKind.SIGN, "."),
        (TokenKind.WORD, "5x"),
        (TokenKind.SIGN, ","),
        (TokenKind.SIGN, "-"),
        (TokenKind.NUMBER, ".5"),
        (TokenKind.SIGN, ","),
        (TokenKind.HEX, "x'41'"),
        (TokenKind.SIGN, "<=>"),
        (TokenKind.PARAM, "?"),
        (TokenKind.SIGN, ":="),
        (TokenKind.USER_VARIABLE, "@a"),
        (TokenKind.SYSTEM_VARIABLE, "@@global.b"),
        (TokenKind.STRING, "N'c'"),
        (TokenKind.BIT, "b'01'"),
        (TokenKind.NUMBER, "1e5"),
    ]


def test_literals_carry_their_index() -> None:
    assert [t.literal for t in tokens(b"SELECT 5, 'x', a5, ?")] == [-1, 0, -1, 1, -1, -1, -1, 2]


def test_words_after_a_dot_and_quoted_names_are_no_keywords() -> None:
    assert [t.upper for t in tokens(b"t.select `from` From")] == ["T", ".", "", "", "FROM"]


def test_double_quotes_follow_the_mode() -> None:
    assert tokens(b'"a""b"')[0].kind is TokenKind.STRING
    assert tokens(b'"a""b"', SqlModes(ansi_quotes=True))[0] == Token(TokenKind.NAME, 'a"b', "", 0, 6)


def test_comments_are_kept_apart() -> None:
    stream = tokenize(b"SELECT /* one */ 1 -- two\n# three\n+ 2", PLAIN, False)
    assert [t.text for t in stream.tokens] == ["SELECT", "1", "+", "2"]
    assert stream.comments == (" one ", " two", " three")


@pytest.mark.parametrize(
    ("sql", "mariadb", "words"),
    [
        (b"/*! a */ b", False, ["a", "b"]),
        (b"/*!40101 a */ b", True, ["a", "b"]),
        (b"/*!80000 a */ b", False, ["a", "b"]),
        (b"/*!50701 a */ b", True, ["b"]),
        (b"/*!100100 a */ b", True, ["a", "b"]),
        (b"/*!100100 a */ b", False, ["b"]),
        (b"/*M! a */ b", True, ["a", "b"]),
        (b"/*M!100600 a */ b", True, ["a", "b"]),
        (b"/*M! a */ b", False, ["b"]),
        (b"/*! 'x */' a */ b", False, ["'x */'", "a", "b"]),
    ],
)
def test_executable_comments(sql: bytes, mariadb: bool, words: list[str]) -> None:
    assert [t.text for t in tokens(sql, mariadb=mariadb)] == words


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        (b"SELECT 'a", "a quote is never closed"),
        (b"SELECT `a", "a quote is never closed"),
        (b"SELECT @'a", "a quote is never closed"),
        (b"SELECT /* a", "a comment is never closed"),
        (b"SELECT /*! a", "an executable comment is never closed"),
        (b"SELECT /*!90100 a */", "whether /*!90100 … */ runs depends on the server's version"),
        (b"SELECT /*!120000 a */", ""),
    ],
)
def test_what_cannot_be_read_is_said(sql: bytes, problem: str) -> None:
    found = tokenize(sql, PLAIN, False).problem
    assert found.startswith(problem) and bool(found) == bool(problem)


def test_names_outside_ascii_need_a_multibyte_charset() -> None:
    assert tokenize("SELECT é".encode(), PLAIN, False).problem == ""
    assert "single-byte" in tokenize("SELECT é".encode("latin1"), SqlModes(single_byte=True), False).problem
    assert tokenize("SELECT 'é'".encode("latin1"), SqlModes(single_byte=True), False).problem == ""


def test_there_is_a_limit() -> None:
    assert "more than 10 words" in tokenize(b"a " * 11, PLAIN, False, limit=10).problem
    assert tokenize(b"a " * 10, PLAIN, False, limit=10).problem == ""


@given(TEXTS, MODES)
def test_tokens_are_those_of_the_slow_lexer(sql: bytes, modes: SqlModes) -> None:
    if b"/*!" in sql or b"/*M!" in sql:
        return
    pieces = Lexer(sql, modes.ansi_quotes, not modes.no_backslash_escapes).pieces()
    stream = tokenize(sql, modes, False)
    if any(p.kind == "broken" for p in pieces):
        assert stream.problem
        return
    if stream.problem == "a number is glued to a name or a quote":
        return
    assert stream.problem == ""
    text = b"".join(sql[t.start : t.end] for t in stream.tokens)
    assert text == b"".join(p.text for p in pieces if p.kind != "comment")
    named = [p.text for p in pieces if p.kind in ("word", "name")]
    assert named == [sql[t.start : t.end] for t in stream.tokens if t.kind in (TokenKind.WORD, TokenKind.NAME)]


@given(TEXTS, MODES)
def test_every_listed_literal_is_a_token(sql: bytes, modes: SqlModes) -> None:
    stream = tokenize(sql, modes, False)
    if stream.problem:
        return
    spans = {(start, end): index for start, (end, index) in literal_spans(sql, modes).items()}
    assert {(t.start, t.end): t.literal for t in stream.tokens if t.literal >= 0} == spans
    assert all(t.kind in LITERAL_KINDS for t in stream.tokens if t.literal >= 0)


def test_a_comments_end_outside_of_a_comment_is_two_signs() -> None:
    assert [t.text for t in tokens(b"2 */* c */ 3 */ 4")] == ["2", "*", "3", "*", "/", "4"]
