"""From tokens to sqlglot's tree, by way of a text that holds nothing the parser could misread.

The analysed text has no comments, no escapes and no sql_mode: names are in backticks, and each literal is a marker
that tells its index in the list of literals. So a literal in the tree is known exactly, and when a marker or a name
is missing from the tree the parser has dropped a part of the statement: it is then refused, never guessed at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from shardproxy.errors import UnsupportedError
from shardproxy.planner.draft import Draft, is_name, literal_list, refuse
from shardproxy.sql.functions import AGGREGATES, BUILT_IN, RESERVED
from shardproxy.sql.tokens import LITERAL_KINDS, Token, TokenKind
from shardproxy.sql.words import words

_NUMBER_BASE = 7_000_000_000_000
_CALL = "shp_call"
_TEXT_MARK = "shp_lit_"
_MARKS = re.compile(rf"{_TEXT_MARK}(\d+)|\b7000000(\d{{6}})\b")
_UNKNOWN_NUMBER = "7999999999999"  # a literal that is not in the list
_UNKNOWN_TEXT = "'shp_unlisted'"
_LONG_LIST = 16
_MOST_TOKENS = 20_000
_DEEPEST = 200
_MOST_WAITING = 8
_MOST_LITERALS = 1_000_000
_UNANALYSED = "this statement cannot be analysed; a hint /*shardproxy: shard=NAME*/ sends it to one shard as it is"


# Called with more than expressions between commas: the parser must see which one it is.
_OWN_SYNTAX = AGGREGATES | words("""
    adddate case cast char convert date_add date_sub extract get_format interval json_value match mid mod position row
    subdate substr substring timestampadd timestampdiff trim value values weight_string
""")
# What SELECT may begin with and what changes no row's place. DISTINCT stays.
_SELECT_MODIFIERS = words("""
    ALL HIGH_PRIORITY STRAIGHT_JOIN SQL_SMALL_RESULT SQL_BIG_RESULT SQL_BUFFER_RESULT SQL_CACHE SQL_NO_CACHE
    SQL_CALC_FOUND_ROWS
""")


class TooLarge(UnsupportedError):
    """The statement is too long or too deep to be looked at more closely."""


def analysed_text(tokens: Sequence[Token]) -> str:
    """The text for the parser. Directions of sorting are left out, and all plain functions get one name: what a
    statement calls is known from its tokens, and the parser cannot then rewrite or misjudge a call."""
    pieces: list[str] = []
    modifiers = False
    for i, token in enumerate(tokens):
        word = token.upper
        modifiers = word == "SELECT" or (modifiers and (word in _SELECT_MODIFIERS or word.startswith("DISTINCT")))
        if word in ("ASC", "DESC") or (modifiers and word in _SELECT_MODIFIERS):
            continue
        pieces.append(_CALL if _is_plain_call(tokens, i) else _emit(token))
    return " ".join(pieces)


def _is_plain_call(tokens: Sequence[Token], index: int) -> bool:
    token = tokens[index]
    if token.kind is not TokenKind.WORD or not token.upper or index + 1 >= len(tokens):
        return False
    name = token.text.lower()
    typed = index > 0 and tokens[index - 1].upper == "AS"  # CAST(… AS TIME(6))
    return tokens[index + 1].upper == "(" and name in BUILT_IN and name not in _OWN_SYNTAX and not typed


def _emit(token: Token) -> str:
    kind = token.kind
    if kind is TokenKind.NAME:
        return "`" + token.text.replace("`", "``") + "`"
    if kind not in LITERAL_KINDS:
        return token.text
    if kind in (TokenKind.NUMBER, TokenKind.PARAM):
        return str(_NUMBER_BASE + token.literal) if token.literal >= 0 else _UNKNOWN_NUMBER
    return f"'{_TEXT_MARK}{token.literal}'" if token.literal >= 0 else _UNKNOWN_TEXT


def literal_index(node: exp.Expr) -> int:
    """Index of a literal node, −1 when it is none of the list's."""
    if not isinstance(node, exp.Literal):
        return -1
    text = str(node.this)
    if node.is_string:
        digits = text.removeprefix(_TEXT_MARK)
        return int(digits) if digits != text and digits.isdigit() else -1
    if text.isdigit() and _NUMBER_BASE <= int(text) < _NUMBER_BASE + _MOST_LITERALS:
        return int(text) - _NUMBER_BASE
    return -1


def parse(draft: Draft, tokens: Sequence[Token]) -> exp.Expr:
    """The tree of the tokens, which may be a part of the statement or changed for analysis.

    Raises UnsupportedError when sqlglot cannot parse them, or has dropped a literal or a name.
    """
    tokens = _short_lists(tokens)
    _check_size(tokens)
    text = analysed_text(tokens)
    try:
        trees = sqlglot.parse(text, read="mysql")
    except SqlglotError as error:
        raise refuse(_not_parsed(error), 1064) from None
    except RecursionError:
        raise TooLarge("the statement is nested too deeply to be analysed") from None
    if len(trees) != 1 or trees[0] is None or isinstance(trees[0], exp.Command):
        raise refuse(_UNANALYSED)
    tree = trees[0]
    _nothing_lost(draft, tokens, tree)
    return tree


def _short_lists(tokens: Sequence[Token]) -> Sequence[Token]:
    """IN lists of many literals with one of them: the others are read from the tokens."""
    kept: list[Token] = []
    start = 0
    for i, token in enumerate(tokens):
        if i < start or token.upper != "IN" or i + 1 >= len(tokens) or tokens[i + 1].upper != "(":
            continue
        values, behind = literal_list(tokens, i + 1)
        if len(values) > _LONG_LIST:
            kept += tokens[start : i + 2]
            kept += [t for t in tokens[i + 2 : behind] if t.literal == values[0].index]
            start = behind - 1
    return [*kept, *tokens[start:]] if start else tokens


def _check_size(tokens: Sequence[Token]) -> None:
    """The parser is recursive native code: too deep a text ends the process. Joins whose ON comes later, or not at
    all, make it try again and again."""
    if len(tokens) > _MOST_TOKENS:
        raise TooLarge(f"the statement is too long to be analysed ({len(tokens)} words and signs): split it")
    depth = waiting = 0
    for i, token in enumerate(tokens):
        word = token.upper
        if word in ("(", "[", "{"):
            depth += 1
        elif word in (")", "]", "}"):
            depth -= 1
        elif word in ("JOIN", "STRAIGHT_JOIN") and tokens[i - 1].upper not in ("CROSS", "NATURAL"):
            waiting += 1
        elif word in ("ON", "USING"):
            waiting = max(0, waiting - 1)
        if depth > _DEEPEST:
            raise TooLarge("the statement is nested too deeply to be analysed")
        if waiting > _MOST_WAITING:
            raise TooLarge("too many joins without ON: write CROSS JOIN, or a comma")


def _not_parsed(error: SqlglotError) -> str:
    details = getattr(error, "errors", None)
    what = str(details[0].get("description", "")) if details else ""
    return (
        f"cannot parse the statement ({what.rstrip('.') or 'syntax error'}); if it is valid, a hint "
        "/*shardproxy: shard=NAME*/ sends it to one shard as it is"
    )


def _nothing_lost(draft: Draft, tokens: Sequence[Token], tree: exp.Expr) -> None:
    """Every listed literal is in the tree once, every name of a configured table as often as in the text, and every
    quoted name at all."""
    found: list[int] = []
    names: Counter[str] = Counter()
    for node in tree.walk():
        if isinstance(node, exp.Identifier):
            names[node.this] += 1
        for value in node.args.values():
            for item in value if isinstance(value, list) else (value,):
                if isinstance(item, str):
                    found += [int(a or b) for a, b in _MARKS.findall(item)]
    if sorted(found) != [t.literal for t in tokens if t.literal >= 0]:
        raise refuse(_UNANALYSED)
    configured = {name for keyspace in draft.context.snapshot.keyspaces.values() for name in keyspace.tables}
    written = Counter(
        token.text for i, token in enumerate(tokens) if is_name(token) and not (token.upper and _is_keyword(tokens, i))
    )
    for name, count in written.items():
        if name in configured and names[name] != count:
            raise refuse(f"{_UNANALYSED} (a part that names '{name}')")
    if any(token.kind is TokenKind.NAME and token.text not in names for token in tokens):
        raise refuse(_UNANALYSED)


def _is_keyword(tokens: Sequence[Token], index: int) -> bool:
    """A reserved word, or the name of a built-in function that is called here."""
    name = tokens[index].text.lower()
    called = index + 1 < len(tokens) and tokens[index + 1].upper == "("
    return name in RESERVED or (called and name in BUILT_IN)
