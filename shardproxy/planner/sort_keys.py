"""Which hidden columns make an expression comparable across shards (DESIGN 13 (e))."""

from __future__ import annotations

from itertools import pairwise

from sqlglot import exp

from shardproxy.planner.blocks import Block, Source, SourceKind
from shardproxy.planner.draft import Draft
from shardproxy.planner.merge_plan import KeyKind, SortKey
from shardproxy.planner.select_parts import Span, as_written, bare_column
from shardproxy.planner.template import Template
from shardproxy.sql.functions import AGGREGATES, RANDOM
from shardproxy.sql.tokens import TokenKind
from shardproxy.sql.words import words
from shardproxy.topology.schema import Column

_BY_VALUE = words("""
    tinyint smallint mediumint int bigint decimal date datetime time year bit binary varbinary tinyblob blob mediumblob
    longblob
""")
_TEXT = words("char varchar tinytext text mediumtext longtext")
_NUMBERS = words("count sum avg bit_and bit_or bit_xor std stddev stddev_pop stddev_samp var_pop var_samp variance")
_LONGEST = 255  # characters
_CHARSETS = ("utf8mb4_", "utf8mb3_", "utf8_", "latin1_", "ascii_", "uca1400_")


def owner(draft: Draft, span: Span, root: Block) -> tuple[Source, Column] | None:
    """The source and column that a bare column is of; None when that is not certain, or it is none."""
    tokens = draft.tokens[span.first : span.end]
    name = bare_column(tokens)
    if not name:
        return None
    found: list[tuple[Source, Column]] = []
    for source in root.sources:
        if len(tokens) > 1 and source.name != tokens[-3].text:
            continue
        if len(tokens) > 3 and source.database != tokens[0].text:
            continue
        schema = draft.context.catalog.get(source.database, source.table.name) if source.table is not None else None
        if schema is None:
            return None
        column = schema.column(name)
        if column is not None:
            found.append((source, column))
    return found[0] if len(found) == 1 else None


def sort_key(draft: Draft, span: Span, root: Block, whole: bool = False, grouped: bool = False) -> SortKey | str:
    """The key of an expression; or, for people, why it has none.

    whole: equal keys must mean equal values. Servers sort by the first bytes of long values only.
    grouped: the statement has GROUP BY, and MySQL knows an expression there only as it is, not within others.
    """
    tokens = draft.tokens[span.first : span.end]
    if any(t.upper == "SELECT" for t in tokens):
        return "a subquery as a sort key"
    called = {t.text.lower() for t, after in pairwise(tokens) if after.text == "(" and t.upper}
    if called & RANDOM:
        return "a random sort key"
    if len(tokens) == 1 and tokens[0].kind is TokenKind.PARAM:
        return "a parameter as a sort key"
    text = as_written(draft, span.first, span.end)
    found = owner(draft, span, root)
    if found is not None:
        if whole and _may_be_long(found[1]):
            return f"grouping by a column of type {found[1].column_type}"
        return key_of(text, found[1])
    if called & _NUMBERS and tokens[0].text.lower() in _NUMBERS and is_one_call(draft, span):
        return SortKey(KeyKind.VALUE, (text,))
    key = key_of(text, None)
    if grouped and not called & AGGREGATES and isinstance(key, SortKey):
        return SortKey(key.kind, (text, *(b"MAX(" + column + b")" for column in key.columns[1:])))
    return key


def _may_be_long(column: Column) -> bool:
    """Whether the weights of a value may be longer than what servers look at when they sort."""
    kind = column.data_type
    if kind in ("varchar", "char", "varbinary"):
        length = column.column_type.partition("(")[2].partition(")")[0]
        return not length.isdigit() or int(length) > _LONGEST
    return kind in _TEXT or "blob" in kind


def key_of(text: Template, column: Column | None, compared_as_text: bool = False) -> SortKey | str:
    """The key of an expression whose values are of that column's type; None: nothing is known of it.

    compared_as_text: ENUM and SET are, by MIN and MAX.
    """
    if column is None or (column.data_type in _TEXT and column.collation is None):
        blank = b"WEIGHT_STRING(RPAD(IFNULL(LEFT(" + text + b",0),''),1,' '))"
        return SortKey(
            KeyKind.ANY, (text, b"WEIGHT_STRING(" + text + b")", b"COLLATION(" + text + b")", blank)
        )  # fmt: skip
    kind = column.data_type
    if kind in _TEXT or (compared_as_text and kind in ("enum", "set")):
        if not orders_by_weight(column.collation or ""):
            return f"a column of collation {column.collation}, whose order is not known here"
        return SortKey(KeyKind.TEXT, (b"WEIGHT_STRING(" + text + b")",), column.collation or "")
    if kind in ("enum", "set"):
        return SortKey(KeyKind.VALUE, (b"CAST(" + text + b" AS UNSIGNED)",))
    if kind in ("float", "double"):
        return SortKey(KeyKind.VALUE, (text + b"+0e0",))
    if kind == "timestamp":
        return SortKey(KeyKind.VALUE, (b"UNIX_TIMESTAMP(" + text + b")",))
    if kind not in _BY_VALUE:
        return f"a column of type {kind} as a sort key"
    if kind == "year" or "zerofill" in column.column_type.lower():
        return SortKey(KeyKind.VALUE, (text + b"+0",))
    return SortKey(KeyKind.VALUE, (text,))


def orders_by_weight(collation: str) -> bool:
    """Whether bytes of WEIGHT_STRING order as the collation does, padded or not (see `is_padded`)."""
    if not collation.startswith(_CHARSETS):
        return False
    several_levels = "uca1400" in collation and not collation.endswith("_ai_ci")
    return not several_levels or "0900" in collation


def is_padded(collation: str) -> bool:
    """Whether it compares as if the shorter text were padded with blanks."""
    return "_0900_" not in collation and "_nopad_" not in collation and collation != "binary"


def is_one_call(draft: Draft, span: Span) -> bool:
    """The whole expression is one call: its first parenthesis is closed by its last token."""
    depth = 0
    for i in range(span.first + 1, span.end):
        depth += (draft.word(i) == "(") - (draft.word(i) == ")")
        if not depth:
            return i == span.end - 1
    return False


def certain_key(draft: Draft, span: Span, root: Block) -> bool:
    """Whether the expression is the shard key of a table each of whose rows is in the answer on its own shard only."""
    found = owner(draft, span, root)
    if found is None:
        return False
    source, column = found
    if source.kind is not SourceKind.SHARDED or source.table is None or source.table.key is None:
        return False
    if root.right_join or (root.outer_join and source is not root.sources[0]):
        return False
    return source.table.key.lower() == column.name.lower()


def star_text(root: Block) -> bytes | None:
    """What * stands for, with names of tables; None when that is not certain."""
    if root.merged or root.right_join or not root.sources:
        return None
    names = [source.name for source in root.sources]
    if len({name.lower() for name in names}) != len(names) or not all(names):
        return None
    return b", ".join(b"`" + name.replace("`", "``").encode("utf-8", "surrogateescape") + b"`.*" for name in names)


def natural_join(tree: exp.Expr) -> bool:
    """Whether a join makes columns one."""
    return any(join.args.get("using") or join.method for join in tree.find_all(exp.Join))
