"""The statement as MySQL's lexer cuts it: what the planner trusts when it checks what the parser made of a text.

Only plan-cache misses come here. Source: sql/sql_lex.cc of MySQL 9.7 and MariaDB 10.11.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from shardproxy.sql.digest import NAME_BYTES, literal_spans
from shardproxy.sql.modes import SqlModes


class TokenKind(Enum):
    WORD = "word"  # unquoted identifier or keyword
    NAME = "name"  # quoted identifier
    NUMBER = "number"
    STRING = "string"  # also N'…'
    HEX = "hex"  # x'..' and 0x..
    BIT = "bit"  # b'..' and 0b..
    PARAM = "parameter"
    USER_VARIABLE = "user variable"
    SYSTEM_VARIABLE = "system variable"
    SIGN = "sign"  # operators and punctuation


LITERAL_KINDS = frozenset({TokenKind.NUMBER, TokenKind.STRING, TokenKind.HEX, TokenKind.BIT, TokenKind.PARAM})


class Token(NamedTuple):
    """One token. `text` is the identifier unquoted, anything else as written; `upper` is what keywords compare with.

    `upper` is "" unless the token can be a keyword: a quoted name, or a word after a dot, never is one.
    `literal` is the index in `scan`'s list, or −1 (not a literal, or one left in the digest).
    """

    kind: TokenKind
    text: str
    upper: str
    start: int
    end: int
    literal: int = -1


@dataclass(frozen=True, slots=True)
class TokenStream:
    """Tokens without comments, the comments' inner texts, and why the text cannot be read ("" when it can)."""

    tokens: tuple[Token, ...]
    comments: tuple[str, ...]
    problem: str = ""


_DOUBLED = rb"[^Q]*+(?:QQ[^Q]*+)*+Q"
_ESCAPED = rb"[^Q\\]*+(?:(?:\\.|QQ)[^Q\\]*+)*+Q"


def _pattern(modes: SqlModes) -> re.Pattern[bytes]:
    string = _DOUBLED if modes.no_backslash_escapes else _ESCAPED
    single = b"'" + string.replace(b"Q", b"'")
    double = b'"' + (_DOUBLED if modes.ansi_quotes else string).replace(b"Q", b'"')
    backtick = b"`" + _DOUBLED.replace(b"Q", b"`")
    return re.compile(
        rb"""
          (?P<blank> [\x09-\x0d\x20]++ )
        | (?P<comment> /\*(?!!|M!).*?\*/ | \#[^\n]*+ | --(?=[\x00-\x20\x7f]|\Z)[^\n]*+ )
        | (?P<code> /\*M?!(?P<version>[0-9]{5,6})? )
        | (?P<word> (?![xXbBnN]')[^\W0-9][NAME]*+ )
        | (?P<hex> [xX]SINGLE | 0x[0-9a-fA-F]++(?![NAME]) )
        | (?P<bit> [bB]SINGLE | 0b[01]++(?![NAME]) )
        | (?P<string> [nN]?SINGLE STRINGS )
        | (?P<number> [0-9]++[eE][+-]?[0-9]++ | [0-9]++(?![NAME])(?:\.[0-9]*+(?:[eE][+-]?[0-9]++)?)? )
        | (?P<digits> [NAME]++ )
        | (?P<name> BACKTICK NAMES )
        | (?P<fraction> \.[0-9]++(?:[eE][+-]?[0-9]++)? )
        | (?P<system> @@(?:BACKTICK|[NAME]++)(?:\.(?:BACKTICK|[NAME]++))*+ )
        | (?P<user> @(?:BACKTICK|SINGLE|DOUBLE|[NAME.]*+) )
        | (?P<sign> :=|<=>|<=|>=|<>|!=|\|\||&&|<<|>>|->>|->|[^'"`] )
        """.replace(b"STRINGS", b"" if modes.ansi_quotes else b"| DOUBLE")
        .replace(b"NAMES", b"| DOUBLE" if modes.ansi_quotes else b"")
        .replace(b"BACKTICK", backtick)
        .replace(b"SINGLE", single)
        .replace(b"DOUBLE", double)
        .replace(b"NAME", NAME_BYTES),
        re.VERBOSE | re.DOTALL,
    )


_PATTERNS: dict[tuple[bool, bool], re.Pattern[bytes]] = {
    (ansi, plain): _pattern(SqlModes(ansi_quotes=ansi, no_backslash_escapes=plain))
    for ansi in (False, True)
    for plain in (False, True)
}
_WORD = re.compile(rb"[NAME]++".replace(b"NAME", NAME_BYTES))
_KINDS = {
    "hex": TokenKind.HEX,
    "bit": TokenKind.BIT,
    "string": TokenKind.STRING,
    "number": TokenKind.NUMBER,
    "fraction": TokenKind.NUMBER,
    "word": TokenKind.WORD,
    "digits": TokenKind.WORD,
    "name": TokenKind.NAME,
    "system": TokenKind.SYSTEM_VARIABLE,
    "user": TokenKind.USER_VARIABLE,
    "sign": TokenKind.SIGN,
}

# Versions in /*!NNNNN … */ that every supported server of the kind executes, and never executes. MariaDB takes
# 50700–99999 for features that it does not have.
_EXECUTED = {True: (range(50700), range(100_000, 101_101)), False: (range(80_001),)}
_SKIPPED = {True: (range(50_700, 100_000),), False: (range(100_000, 1_000_000),)}


def tokenize(sql: bytes, modes: SqlModes, mariadb: bool, limit: int = 100_000) -> TokenStream:
    """Cuts the text. The content of an executable comment that every server runs is part of the tokens.

    limit: most tokens; 100,000 take a tenth of a second.
    """
    pattern = _PATTERNS[modes.ansi_quotes, modes.no_backslash_escapes]
    spans = literal_spans(sql, modes)
    tokens: list[Token] = []
    comments: list[str] = []
    inside_code = False
    found_literals = 0
    at = 0
    while at < len(sql):
        if inside_code and sql.startswith(b"*/", at):
            inside_code = False
            at += 2
            continue
        dotted = bool(tokens) and tokens[-1].text == "." and tokens[-1].end == at
        match = (_WORD.match(sql, at) if dotted else None) or pattern.match(sql, at)
        if match is None:
            return TokenStream(tuple(tokens), tuple(comments), "a quote is never closed")
        group = match.lastgroup if match.re is pattern else "word"
        if group == "version":
            group = "code"
        start, at = at, match.end()
        if group == "blank":
            continue
        if group == "comment":
            comments.append(_inner(match.group()))
            continue
        if group == "code":
            version = _version(match, mariadb)
            at = match.start() + match.group().index(b"!") + 1 + len(version)
            problem = _executed(match, version, mariadb, inside_code)
            if problem == "skip":
                end = sql.find(b"*/", at)
                comments.append(_text(sql[at : end if end >= 0 else len(sql)]))
                at = end + 2 if end >= 0 else len(sql)
            elif problem:
                return TokenStream(tuple(tokens), tuple(comments), problem)
            else:
                inside_code = True
            continue
        raw = match.group()
        if group == "sign" and sql.startswith(b"/*", start):
            return TokenStream(tuple(tokens), tuple(comments), "a comment is never closed")
        if group == "fraction" and _after_name(tokens, start):
            group, raw, at = "sign", b".", start + 1
        token = _token(str(group), raw, start, at, spans, dotted)
        if token.literal >= 0:
            found_literals += 1
        if modes.single_byte and token.kind in _NAMED and not raw.isascii():
            return TokenStream(tuple(tokens), tuple(comments), "a name outside ASCII, sent in a single-byte charset")
        tokens.append(token)
        if len(tokens) > limit:
            return TokenStream(tuple(tokens), tuple(comments), f"it has more than {limit} words and signs; split it")
    if inside_code:
        return TokenStream(tuple(tokens), tuple(comments), "an executable comment is never closed")
    if found_literals != len(spans):
        return TokenStream(tuple(tokens), tuple(comments), "a number is glued to a name or a quote")
    return TokenStream(tuple(tokens), tuple(comments))


def pieces(sql: bytes, modes: SqlModes, mariadb: bool) -> Iterator[tuple[bytes, bool | None]]:
    """The text in pieces that make it up: (bytes, whether they are a mark of an executable comment, or one that does
    not run). The last is (b"", None) where the text cannot be read, or the server's version decides."""
    pattern = _PATTERNS[modes.ansi_quotes, modes.no_backslash_escapes]
    inside_code = False
    at = 0
    while at < len(sql):
        if inside_code and sql.startswith(b"*/", at):
            inside_code = False
            at += 2
            yield b"*/", True
            continue
        match = pattern.match(sql, at)
        if match is None:
            yield b"", None
            return
        start, at = at, match.end()
        if match.lastgroup not in ("code", "version"):
            yield match.group(), False
            continue
        version = _version(match, mariadb)
        at = start + match.group().index(b"!") + 1 + len(version)
        problem = _executed(match, version, mariadb, inside_code)
        if problem == "skip":
            end = sql.find(b"*/", at)
            at = end + 2 if end >= 0 else len(sql)
        elif problem:
            yield b"", None
            return
        else:
            inside_code = True
        yield sql[start:at], True
    if inside_code:
        yield b"", None


_NAMED = frozenset({TokenKind.WORD, TokenKind.NAME})


def _token(group: str, raw: bytes, start: int, end: int, spans: dict[int, tuple[int, int]], dotted: bool) -> Token:
    kind = _KINDS[group]
    if raw == b"?":
        kind = TokenKind.PARAM
    span_end, index = spans.get(start, (-1, -1))
    literal = index if span_end == end and kind in LITERAL_KINDS else -1
    text = _text(raw)
    if kind is TokenKind.NAME:
        text = text[1:-1].replace(text[0] * 2, text[0])
    upper = text.upper() if (kind is TokenKind.WORD and not dotted) or kind is TokenKind.SIGN else ""
    return Token(kind, text, upper, start, end, literal)


def _version(match: re.Match[bytes], mariadb: bool) -> bytes:
    """The digits that a server takes for a version. MySQL takes a sixth one only before a blank."""
    version: bytes = match.group("version") or b""
    after = match.string[match.end() : match.end() + 1]
    return version[:5] if len(version) == 6 and not mariadb and after not in _BLANKS else version


_BLANKS = (b" ", b"\t", b"\n", b"\r", b"\v", b"\f")


def _executed(match: re.Match[bytes], version: bytes, mariadb: bool, inside: bool) -> str:
    """ "" when the comment's content runs on every server, "skip" when it is a comment there, else the problem."""
    if match.group().startswith(b"/*M") and not mariadb:
        return "skip"
    if inside:
        return "executable comments are nested"
    if not version or any(int(version) in versions for versions in _EXECUTED[mariadb]):
        return ""
    if any(int(version) in versions for versions in _SKIPPED[mariadb]):
        return "skip"
    return f"whether /*!{version.decode()} … */ runs depends on the server's version; write it without the comment"


def _after_name(tokens: list[Token], start: int) -> bool:
    return bool(tokens) and tokens[-1].end == start and tokens[-1].kind in _NAMED


def _inner(comment: bytes) -> str:
    if comment.startswith(b"/*"):
        return _text(comment[2:-2])
    return _text(comment[1 if comment.startswith(b"#") else 2 :])


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
