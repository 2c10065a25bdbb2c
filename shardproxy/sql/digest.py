"""Literals and comments out of a statement's text: what is left, the digest, is the key under which its plan is kept.

Rules of this file:
- It runs for every query. The fast pattern reads a text that holds nothing but words, numbers and plain
  '…' strings; whatever could hide a literal or look like one (`, ", \\, #, --, /*, an odd quote) is a *hard* sign
  and sends the text to the exact pattern of its sql_mode.
- Leaving a literal in the digest is always safe (the text is kept verbatim), taking out something that is not a
  literal never is. So numbers glued to a name (1abc, 1.5x) stay where they are.
- Two texts with one digest, read under the same SqlModes, have the same tokens but for the values of their
  literals. The kinds of literals at one place may differ (5, '5', ?).

The pipeline may inline the fast path:

    parts = SPLIT(sql)
    literals = parts[1::2]
    if SOFT(literals):
        digest = b"?".join(parts[::2])
    else:
        digest, literals = scan_hard(sql, modes)

Source: the lexers of MySQL 9.7 (sql/sql_lex.cc, states MY_LEX_NUMBER_IDENT to MY_LEX_REAL) and MariaDB 10.11.
"""

from __future__ import annotations

import re
from itertools import accumulate

from shardproxy.sql.modes import SqlModes

NAME_BYTES = rb"0-9A-Za-z_$\x80-\xff"  # bytes of an unquoted identifier, for use inside [ ]

# The first element is a plain character set on purpose: the engine then skips to candidates at memory speed (0.6 µs
# against 2.5 µs a point select); look-behinds decide afterwards which of them it found.
FAST = re.compile(
    rb"""(
      [0-9'?"`\\#./-]
      (?:
        # a number: not glued to a name, a dot or an @ on its left, nor to a name or a dot on its right
        (?<=[0-9]) (?<![NAME.@][0-9])
        (?: [0-9]*+ (?![NAME.])
          | [0-9]*+ (?:\.[0-9]*+)? (?:[eE][+-]?[0-9]++)? (?![NAME.])
          | (?<=0) (?: x[0-9a-fA-F]++ | b[01]++ ) (?![NAME.])
        )
        # a plain string: no backslash inside, not glued to a name (x'..', n'..', @'..')
      | (?<=') (?<![NAME@]') [^'\\]*+ (?:''[^'\\]*+)*+ '
      | (?<=\?)
        # hard signs, captured as one byte (a lone quote too: glued, holding a backslash, or never closed)
      | (?<=["`\\#'])
      | (?<=\.) (?=[0-9])
      | (?<=-) (?=-)
      | (?<=/) (?=\*)
      )
    )""".replace(b"NAME", NAME_BYTES),
    re.VERBOSE | re.DOTALL,
)
HARD = frozenset((b'"', b"`", b"\\", b"#", b"'", b".", b"-", b"/"))
SPLIT = FAST.split
SOFT = HARD.isdisjoint


def _exact_pattern(modes: SqlModes) -> re.Pattern[bytes]:
    """One group, told apart by its first byte: a literal, or a stretch that stays (comment, quoted name, variable).

    What is never closed stays to the end of the text, so that nothing after it is taken for a literal. Like FAST it
    begins with a plain character set.
    """
    doubled = rb"[^Q]*+(?:QQ[^Q]*+)*+Q"
    string = doubled if modes.no_backslash_escapes else rb"[^Q\\]*+(?:(?:\\.|QQ)[^Q\\]*+)*+Q"
    return re.compile(
        rb"""(
          [0-9'?"`#.@/-]
          (?:
            (?<=[0-9]) (?<![NAME.@][0-9])
            (?: [0-9]*+ (?![NAME.])
              | [0-9]*+ (?:\.[0-9]*+)? (?:[eE][+-]?[0-9]++)? (?![NAME.])
              | (?<=0) (?: x[0-9a-fA-F]++ | b[01]++ ) (?![NAME.])
            )
          | (?<=') SINGLE
          | (?<=`) BACKTICK
          | (?<=") DOUBLE
          | (?<=\?)
          | (?<=\.) (?<![NAME.`"'@]\.) [0-9]++ (?:[eE][+-]?[0-9]++)? (?![NAME.])
          | (?<=/) \*.*?(?:\*/|\Z)
          | (?<=-) -(?=[\x00-\x20\x7f]|\Z) [^\n]*+
          | (?<=\#) [^\n]*+
          | (?<=@) @*+(?: `BACKTICK | 'SINGLE | "DOUBLE | [NAME.]*+ )
          | (?<=['"`]) .*+
          )
        )""".replace(b"BACKTICK", doubled.replace(b"Q", b"`"))
        .replace(b"SINGLE", string.replace(b"Q", b"'"))
        .replace(b"DOUBLE", (doubled if modes.ansi_quotes else string).replace(b"Q", b'"'))
        .replace(b"NAME", NAME_BYTES),
        re.VERBOSE | re.DOTALL,
    )


_EXACT: dict[tuple[bool, bool], re.Pattern[bytes]] = {
    (ansi, plain): _exact_pattern(SqlModes(ansi_quotes=ansi, no_backslash_escapes=plain))
    for ansi in (False, True)
    for plain in (False, True)
}
_STAYS = {True: frozenset(b'`#@/-"'), False: frozenset(b"`#@/-")}  # by ansi_quotes: first bytes of what stays
_PREFIXES = (b"x", b"X", b"b", b"B", b"n", b"N")
_GLUED = re.compile(rb"[NAME.@].".replace(b"NAME", NAME_BYTES), re.DOTALL).match


def scan(sql: bytes, modes: SqlModes) -> tuple[bytes, list[bytes]]:
    """Digest (each literal replaced by ?, each comment that is no hint by an empty one) and the literals as written.

    Never raises: text after a quote that is never closed stays in the digest, for the planner to refuse. A text with
    an executable comment (/*! … */) is its own digest, without literals.
    """
    parts = SPLIT(sql)
    literals = parts[1::2]
    if SOFT(literals):
        return b"?".join(parts[::2]), literals
    return scan_hard(sql, modes)


def scan_hard(sql: bytes, modes: SqlModes) -> tuple[bytes, list[bytes]]:
    """`scan` of a text that the fast pattern found hard: the same answer for any text, only slower."""
    parts = _EXACT[modes.ansi_quotes, modes.no_backslash_escapes].split(sql)
    if _has_code(sql, parts):
        return sql, []
    literals = []
    for i in _literal_places(parts, modes):
        literals.append(parts[i])
        parts[i] = b"?"
    for i in range(1, len(parts), 2):
        if parts[i].startswith(_COMMENTS) and _says_nothing(parts[i]):
            parts[i] = b"/**/"
    return b"".join(parts), literals


_COMMENTS = (b"/*", b"--", b"#")


def _says_nothing(comment: bytes) -> bool:
    """Whether a comment is no hint, nor left open. Tools put a new trace id into each: with the text
    in the digest no plan would be found again, and the text may be somebody's data."""
    if comment.startswith(b"/*+"):
        return False
    return (not comment.startswith(b"/*") or comment.endswith(b"*/")) and b"shardproxy" not in comment.lower()


def literal_spans(sql: bytes, modes: SqlModes) -> dict[int, tuple[int, int]]:
    """Where `scan` found its literals: start offset → (end offset, index in the list)."""
    parts = SPLIT(sql)
    if SOFT(parts[1::2]):
        places: list[int] = list(range(1, len(parts), 2))
    else:
        parts = _EXACT[modes.ansi_quotes, modes.no_backslash_escapes].split(sql)
        places = [] if _has_code(sql, parts) else _literal_places(parts, modes)
    starts = [0, *accumulate(map(len, parts))]
    return {starts[place]: (starts[place + 1], index) for index, place in enumerate(places)}


def _has_code(sql: bytes, parts: list[bytes]) -> bool:
    """Whether there is an executable comment: code of its own, which may hold a string with */ in it."""
    return (b"/*!" in sql or b"/*M!" in sql) and any(part.startswith((b"/*!", b"/*M!")) for part in parts[1::2])


def _literal_places(parts: list[bytes], modes: SqlModes) -> list[int]:
    """Which entries of an exact split are literals; gives x'..', b'..', n'..' their letter back."""
    stays = _STAYS[modes.ansi_quotes]
    places = [i for i in range(1, len(parts), 2) if parts[i][0] not in stays]
    if places and not parts[-1] and places[-1] == len(parts) - 2 and not _closed(parts[-2], modes):
        places.pop()
    glued: list[int] = []
    for i in places:
        before = parts[i - 1]
        if before.endswith(_PREFIXES) and parts[i][0] == 0x27:
            if _GLUED(before[-2:]):
                glued.append(i)  # 1.5x'41' is a number and a hex string, axx'41' a name and a string: who knows
            else:
                parts[i - 1], parts[i] = before[:-1], before[-1:] + parts[i]
    return [i for i in places if i not in glued] if glued else places


def _closed(piece: bytes, modes: SqlModes) -> bool:
    """Whether a piece at the end of the text is whole: a quote never closed would swallow what is put behind it."""
    if piece[0] not in b"'\"":
        return True
    match = _EXACT[modes.ansi_quotes, modes.no_backslash_escapes].match(piece + b" ")
    return match is not None and match.end() == len(piece)
