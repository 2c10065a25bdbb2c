"""GROUP_CONCAT and JSON_ARRAYAGG over groups with rows on several shards, read at the tokens."""

from __future__ import annotations

from dataclasses import dataclass

from shardproxy.planner.blocks import Block
from shardproxy.planner.draft import Draft
from shardproxy.planner.select_parts import Span, Term, as_written, split, term_of
from shardproxy.planner.sort_keys import owner
from shardproxy.planner.template import Template, joined
from shardproxy.sql.tokens import TokenKind
from shardproxy.sql.words import words

# What servers count the bytes of in a character set whose characters take at most as many bytes as in the answer's.
_CHARSETS = ("utf8mb4_", "utf8mb3_", "utf8_", "latin1_", "ascii_", "uca1400_")
_PLAIN = words("""
    tinyint smallint mediumint int bigint decimal float double date datetime timestamp time year binary varbinary
    tinyblob blob mediumblob longblob
""")


@dataclass(frozen=True, slots=True)
class Concatenation:
    """distinct: of DISTINCT values, `arguments`; order: the terms of its ORDER BY; limits: the hidden columns: the
    separator, the most bytes, and the names of the arguments' character sets with commas between, as far as these are
    not known here."""

    arguments: tuple[Span, ...]
    distinct: bool
    order: tuple[Term, ...]
    limits: tuple[Template, Template, Template]


def group_concat(draft: Draft, inner: Span, root: Block) -> Concatenation | str:
    """What stands in the parentheses of GROUP_CONCAT; or, for people, why it cannot be merged."""
    distinct = draft.word(inner.first) == "DISTINCT"
    ends = {word: _at(draft, inner, word) for word in ("ORDER", "SEPARATOR", "LIMIT")}
    if ends["LIMIT"] < inner.end:
        return "GROUP_CONCAT with LIMIT"
    separator: Template = Template((b"','",))
    if ends["SEPARATOR"] < inner.end:
        token = draft.tokens[ends["SEPARATOR"] + 1]
        if inner.end - ends["SEPARATOR"] != 2 or token.kind is not TokenKind.STRING:
            return "GROUP_CONCAT with a separator that is no plain text"
        separator = as_written(draft, ends["SEPARATOR"] + 1, inner.end)
    order: tuple[Term, ...] = ()
    if ends["ORDER"] < ends["SEPARATOR"]:
        order = tuple(term_of(draft, span) for span in split(draft, ends["ORDER"] + 2, ends["SEPARATOR"]))
        if draft.word(ends["ORDER"] + 1) != "BY" or any(term.position is not None for term in order):
            return "GROUP_CONCAT ordered by a position"
        if len({_named(draft, term.span, root) for term in order}) < len(order):
            return "GROUP_CONCAT ordered by one thing twice"  # of which only the first direction counts
    arguments = tuple(split(draft, inner.first + distinct, min(ends.values())))
    most = Template((b"@@group_concat_max_len",))
    return Concatenation(arguments, distinct, order, (separator, most, _charsets(draft, arguments, root)))


def _named(draft: Draft, span: Span, root: Block) -> object:
    """What a term is ordered by: the same for one column that is written in two ways."""
    found = owner(draft, span, root)
    return as_written(draft, span.first, span.end) if found is None else (id(found[0]), found[1].name)


def json_array(draft: Draft, inner: Span, root: Block) -> Concatenation | str:
    """The same of JSON_ARRAYAGG."""
    if any(_at(draft, inner, word) < inner.end for word in ("DISTINCT", "ORDER", "LIMIT", "SEPARATOR")):
        return "JSON_ARRAYAGG with DISTINCT, ORDER BY or LIMIT"
    if not draft.context.mariadb:
        texts = Template((b"', '",)), Template((b"@@max_allowed_packet",)), Template((b"''",))
        return Concatenation((inner,), False, (), texts)
    most = Template((b"@@group_concat_max_len",))
    return Concatenation((inner,), False, (), (Template((b"','",)), most, _charsets(draft, (inner,), root)))


def _at(draft: Draft, inner: Span, word: str) -> int:
    """Index of a word outside parentheses; the end where it does not stand."""
    depth = 0
    for i in range(inner.first, inner.end):
        found = draft.word(i)
        depth += (found == "(") - (found == ")")
        if found == word and not depth:
            return i
    return inner.end


def _charsets(draft: Draft, arguments: tuple[Span, ...], root: Block) -> Template:
    unknown = [span for span in arguments if not _counted(draft, span, root)]
    if not unknown:
        return Template((b"''",))
    texts = [b"MAX(CHARSET(" + as_written(draft, span.first, span.end) + b"))" for span in unknown]
    return b"CONCAT_WS(','," + joined(texts, b",") + b")"


def _counted(draft: Draft, span: Span, root: Block) -> bool:
    """Whether the bytes that a server counts are no more than those of the answer."""
    if span.end - span.first == 1 and draft.tokens[span.first].kind in (TokenKind.STRING, TokenKind.NUMBER):
        return True
    found = owner(draft, span, root)
    if found is None:
        return False
    column = found[1]
    return column.data_type in _PLAIN or (column.collation or "").startswith(_CHARSETS)
