from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.sql.digest import HARD, SOFT, SPLIT, literal_spans, scan, scan_hard
from shardproxy.sql.modes import SqlModes
from tests.unit.sql.lexer import Lexer, Piece

PLAIN = SqlModes()
GLUED = re.compile(rb"[0-9A-Za-z_$.@\x80-\xff][xXbBnN]'").search
LITERAL_KINDS = ("number", "string", "param")


@pytest.mark.parametrize(
    ("sql", "digest", "literals"),
    [
        (b"SELECT c FROM sbtest1 WHERE id=12345", b"SELECT c FROM sbtest1 WHERE id=?", [b"12345"]),
        (b"SELECT 1.5, .5, 1., 1e5, 1.5E-3, 0x1F, 0b01", b"SELECT ?, ?, ?, ?, ?, ?, ?",
         [b"1.5", b".5", b"1.", b"1e5", b"1.5E-3", b"0x1F", b"0b01"]),
        (b"SELECT 'a''b', 'c\\'d', \"e\"", b"SELECT ?, ?, ?", [b"'a''b'", b"'c\\'d'", b'"e"']),
        (b"SELECT x'41', B'01', N'x', _utf8'y'", b"SELECT ?, ?, ?, _utf8?", [b"x'41'", b"B'01'", b"N'x'", b"'y'"]),
        (b"WHERE a=-5 AND b=?", b"WHERE a=-? AND b=?", [b"5", b"?"]),
        (b"SELECT 'a' 'b'", b"SELECT ? ?", [b"'a'", b"'b'"]),
        (b"IN(1,2,3)", b"IN(?,?,?)", [b"1", b"2", b"3"]),
    ],
)  # fmt: skip
def test_literals_come_out(sql: bytes, digest: bytes, literals: list[bytes]) -> None:
    assert scan(sql, PLAIN) == (digest, literals)


@pytest.mark.parametrize(
    "sql",
    [
        b"SELECT t1.c2, 1abc, a$5, t.5, t.5x, `a 5 b`, `x`.5 FROM t1",
        b"SELECT @5, @a5, @a.5, @@x5, @'a 5', @`b 5`",
        b"SELECT NULL, TRUE /*+ hint(5) */ /* shardproxy: shard=a5 */ FROM t -- shardproxy: 5",
        b"SELECT 1.5x, 1..5, 5e, 0xZZ, 0X41",
        "SELECT é5, 名5".encode(),
        b"SELECT `never closed 5",
        b"SELECT 'never closed 5",
        b"SELECT /* never closed 5",
        b"SELECT /*! 5 */ 6",
        b"SELECT 7 /*M! 5 */",
        b"",
    ],
)
def test_what_is_no_literal_stays(sql: bytes) -> None:
    assert scan(sql, PLAIN) == (sql, [])


def test_sql_mode_decides_what_quotes_are() -> None:
    assert scan(b'SELECT "a 5", 5', SqlModes(ansi_quotes=True)) == (b'SELECT "a 5", ?', [b"5"])
    assert scan(b"SELECT 'a\\', 5, 'b'", SqlModes(no_backslash_escapes=True)) == (
        b"SELECT ?, ?, ?",
        [b"'a\\'", b"5", b"'b'"],
    )


def test_a_line_comment_needs_a_blank_or_the_end() -> None:
    assert scan(b"SELECT 5--5", PLAIN) == (b"SELECT ?--?", [b"5", b"5"])
    assert scan(b"SELECT 5-- 5", PLAIN) == (b"SELECT ?/**/", [b"5"])
    assert scan(b"SELECT 5--", PLAIN) == (b"SELECT ?/**/", [b"5"])


def test_the_pipeline_may_inline_the_fast_path() -> None:
    parts = SPLIT(b"SELECT c FROM t WHERE id = 5 AND s = 'x'")
    assert SOFT(parts[1::2])
    assert b"?".join(parts[::2]) == b"SELECT c FROM t WHERE id = ? AND s = ?"
    for sign in (b"`a`", b'"a"', b"'\\''", b"# a", b"-- a", b"/* a */", b".5", b"x'41'"):
        assert not SOFT(SPLIT(b"SELECT 1, " + sign)[1::2]), sign
    assert all(len(sign) == 1 for sign in HARD)


# Fragments that lexers stumble over, put together at random.
FRAGMENTS = st.sampled_from(
    [
        b"SELECT ", b"WHERE ", b" AND ", b"a", b"t1", b"1abc", b"x", b"X", b"b", b"n", b"N", b"e", b"E5", b"_utf8",
        b"5", b"0", b"12.5", b".5", b"1e5", b"1e", b"0x1f", b"0x", b"0b01", b"0b2", b"1.", b".", b"..", b"'", b"''",
        b"'a'", b"'a''b'", b"'it\\'s 5'", b"\\", b"'\\\\'", b'"', b'"a 5"', b"`", b"`a 5`", b"``", b"@", b"@@",
        b"@a5", b"@'x 5'", b"--", b"-- ", b"-", b"#", b"/*", b"*/", b"/* 5 */", b"/", b"*", b"\n", b" ", b"\t", b"?",
        b"(", b")", b",", b";", b"=", b":=", b"<=>", b"$", b"_", b"\xc3\xa9", b"\xa0", b"\x00", b"{",
    ]
)  # fmt: skip
TEXTS = st.lists(FRAGMENTS, max_size=14).map(b"".join)
MODES = st.builds(SqlModes, ansi_quotes=st.booleans(), no_backslash_escapes=st.booleans())


def lexed(sql: bytes, modes: SqlModes) -> list[Piece]:
    return Lexer(sql, modes.ansi_quotes, not modes.no_backslash_escapes).pieces()


def shape(pieces: list[Piece]) -> list[tuple[str, bytes]]:
    """The tokens with literals' values and comments taken out: what two texts must have in common to mean the same."""
    kept = [p for p in pieces if p.kind != "comment" or b"!" in p.text]
    return [("literal", b"") if p.kind in LITERAL_KINDS else (p.kind, p.text) for p in kept]


@given(TEXTS, MODES)
def test_what_is_taken_out_is_a_literal(sql: bytes, modes: SqlModes) -> None:
    pieces = lexed(sql, modes)
    starts: dict[int, bytes] = {}
    at = 0
    for piece in pieces:
        at = sql.index(piece.text, at)
        if piece.kind in LITERAL_KINDS:
            starts[at] = piece.text
        at += len(piece.text)
    for start, (end, _) in literal_spans(sql, modes).items():
        assert starts.get(start) == sql[start:end]


@given(TEXTS, MODES)
def test_clear_literals_are_taken_out(sql: bytes, modes: SqlModes) -> None:
    pieces = lexed(sql, modes)
    if any(p.text.startswith((b"/*!", b"/*M!")) or p.kind == "broken" for p in pieces):
        return
    _, literals = scan(sql, modes)
    strings = [p.text for p in pieces if p.kind in ("string", "param")]
    if GLUED(sql):
        return  # axx'41': a name and a string, 1.5x'41': a number and another, left where they are
    assert [text for text in literals if text[-1:] in (b"'", b'"', b"?")] == strings


@given(TEXTS, MODES)
def test_fast_and_exact_agree(sql: bytes, modes: SqlModes) -> None:
    assert scan(sql, modes) == scan_hard(sql, modes)


@pytest.mark.parametrize(
    ("sql", "digest"),
    [
        (b"/* trace 5 */ SELECT a -- 5 'x'\n, b # 5\n, c /* 5 'x' */", b"/**/ SELECT a /**/\n, b /**/\n, c /**/"),
        (b"SELECT 1/* a */2", b"SELECT ?/**/?"),
        (b"SELECT a--", b"SELECT a/**/"),
        (b"SELECT a /* open 5", b"SELECT a /* open 5"),
        (b"SELECT /* a */ /*! '*/ /* 5 */' */ 5", b"SELECT /* a */ /*! '*/ /* 5 */' */ 5"),
    ],
)
def test_comments_leave_the_digest(sql: bytes, digest: bytes) -> None:
    assert scan(sql, PLAIN)[0] == digest


@given(TEXTS, MODES)
def test_digest_and_literals_give_the_text_back(sql: bytes, modes: SqlModes) -> None:
    if any(p.kind in ("comment", "broken") for p in lexed(sql, modes)):
        return
    digest, literals = scan(sql, modes)
    spans = literal_spans(sql, modes)
    assert [sql[start:end] for start, (end, _) in spans.items()] == literals
    assert [index for _, index in spans.values()] == list(range(len(literals)))
    rebuilt = bytearray(sql)
    for start, (end, _) in sorted(spans.items(), reverse=True):
        rebuilt[start:end] = b"?"
    assert bytes(rebuilt) == digest


VALUES = st.sampled_from([b"7", b"123456", b"'z'", b"'a b 5 /* -- \"`'", b"3.25", b"0x41", b"?", b"'q''q'"])


@given(TEXTS, MODES, st.data())
def test_texts_with_one_digest_have_one_shape(sql: bytes, modes: SqlModes, data: st.DataObject) -> None:
    """Other literals of the same kind in the same places: the digest stays, and so does every other token."""
    digest, literals = scan(sql, modes)
    changed = bytearray()
    at = 0
    for start, (end, _) in literal_spans(sql, modes).items():
        old = sql[start:end]
        new = data.draw(VALUES)
        same_kind = (old[:1] == b"'") == (new[:1] == b"'") and (old == b"?") == (new == b"?") and old[-1:] != b'"'
        same_kind = same_kind and (old[-1:] == b"'") == (new[-1:] == b"'")
        changed += sql[at:start] + (new if same_kind else old)
        at = end
    changed += sql[at:]
    other = bytes(changed)
    if scan(other, modes)[0] == digest:
        assert shape(lexed(other, modes)) == shape(lexed(sql, modes))
        assert len(scan(other, modes)[1]) == len(literals)


@given(st.binary(max_size=60), MODES)
def test_any_bytes_are_scanned(sql: bytes, modes: SqlModes) -> None:
    digest, literals = scan(sql, modes)
    assert digest.count(b"?") >= len(literals)
    assert all(literal in sql for literal in literals)
