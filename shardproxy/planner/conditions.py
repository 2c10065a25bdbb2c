"""WHERE and ON expressions as conditions on one source's key. Whatever is not understood for certain is Anywhere.

The tree says how AND, OR and parentheses nest. That a comparison with a literal stands by itself (is not an operand of
something that binds tighter, as in `k = 5 COLLATE …` or `NOT k = 5`) is checked again in the tokens.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from shardproxy.planner.draft import Draft, is_name, literal_list
from shardproxy.planner.parse import literal_index
from shardproxy.planner.plan import AllOf, AnyOf, Anywhere, Condition, KeyBetween, KeyIn, Nowhere, Value
from shardproxy.sql.tokens import TokenKind
from shardproxy.sql.words import words
from shardproxy.topology.keys import KeyType

IsKey = Callable[[exp.Expr], bool]

# What may stand before and after a comparison that is a whole term of AND and OR.
_BEFORE = frozenset({"WHERE", "ON", "AND", "&&", "OR", "||", "("})
_AFTER = words("""
    ) , AND && OR || GROUP HAVING ORDER LIMIT OFFSET FETCH FOR LOCK UNION EXCEPT INTERSECT MINUS INTO WINDOW
    PROCEDURE JOIN INNER CROSS LEFT RIGHT NATURAL STRAIGHT_JOIN WHERE SET RETURNING ON USING
""")
_FLIPPED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.EQ: exp.EQ, exp.NullSafeEQ: exp.NullSafeEQ, exp.LT: exp.GT, exp.GT: exp.LT, exp.LTE: exp.GTE, exp.GTE: exp.LTE,
}  # fmt: skip
_SIGNS: dict[type[exp.Expr], str] = {
    exp.EQ: "=", exp.NullSafeEQ: "<=>", exp.LT: "<", exp.GT: ">", exp.LTE: "<=", exp.GTE: ">=",
}  # fmt: skip


def opaque(draft: Draft) -> bool:
    """Whether the statement holds something whose binding the tree may have wrong: then no condition is used.

    sqlglot gives XOR the precedence of AND, and knows || only as OR.
    """
    return draft.has("XOR") or any(
        t.kind is TokenKind.SIGN and (t.text == ":=" or (t.text == "||" and draft.context.modes.pipes_as_concat))
        for t in draft.tokens
    )


def conjuncts(node: exp.Expr | None) -> list[exp.Expr]:
    """The terms of an AND, parentheses undone."""
    return _flat(node, exp.And) if node is not None else []


def _flat(node: exp.Expr, connector: type[exp.Connector]) -> list[exp.Expr]:
    """Operands in order; not recursive, for lists of thousands are written as chains."""
    terms: list[exp.Expr] = []
    stack = [node]
    while stack:
        one = stack.pop().unnest()
        if isinstance(one, connector):
            stack += [one.expression, one.this]
        else:
            terms.append(one)
    return terms


def condition(draft: Draft, node: exp.Expr | None, key: IsKey, key_type: KeyType) -> Condition:
    """An upper bound on where rows are for which the expression is true, by the key that `key` recognises."""
    terms = conjuncts(node)
    if not terms:
        return Anywhere()
    if len(terms) > 1:
        return all_of([condition(draft, term, key, key_type) for term in terms])
    choices = _flat(terms[0], exp.Or)
    if len(choices) > 1:
        return any_of([condition(draft, choice, key, key_type) for choice in choices])
    return _term(draft, choices[0], key, key_type)


def all_of(parts: list[Condition]) -> Condition:
    """AND: Anywhere says nothing; a lower and an upper bound become one interval."""
    useful: list[Condition] = []
    for part in parts:
        useful += part.parts if isinstance(part, AllOf) else [part]
    useful = list(dict.fromkeys(part for part in useful if not isinstance(part, Anywhere)))
    if any(isinstance(part, Nowhere) for part in useful):
        return Nowhere()
    low = next((p for p in useful if isinstance(p, KeyBetween) and p.high is None), None)
    high = next((p for p in useful if isinstance(p, KeyBetween) and p.low is None), None)
    if low is not None and high is not None:
        both = KeyBetween(low.low, high.high, low.low_open, high.high_open)
        useful = [both if part is low else part for part in useful if part is not high]
    if not useful:
        return Anywhere()
    return useful[0] if len(useful) == 1 else AllOf(tuple(useful))


def any_of(parts: list[Condition]) -> Condition:
    """OR: one Anywhere spoils it; equalities become one list."""
    if any(isinstance(part, Anywhere) for part in parts):
        return Anywhere()
    useful = list(dict.fromkeys(part for part in parts if not isinstance(part, Nowhere)))
    values = [value for part in useful if isinstance(part, KeyIn) for value in part.values]
    rest: list[Condition] = [part for part in useful if not isinstance(part, KeyIn)]
    if values:
        rest.insert(0, KeyIn(tuple(dict.fromkeys(values))))
    if not rest:
        return Nowhere()
    return rest[0] if len(rest) == 1 else AnyOf(tuple(rest))


def _term(draft: Draft, node: exp.Expr, key: IsKey, key_type: KeyType) -> Condition:
    if type(node) in _FLIPPED:
        return _comparison(draft, node, key, key_type)
    if isinstance(node, exp.In):
        return _in(draft, node, key)
    if isinstance(node, exp.Between) and key(node.this):
        return _between(draft, node, key_type)
    return Anywhere()


def _comparison(draft: Draft, node: exp.Expr, key: IsKey, key_type: KeyType) -> Condition:
    operator = type(node)
    sign = _SIGNS[operator]
    left, right = node.this, node.expression
    if key(left):
        literal = right
    elif key(right):
        literal, operator = left, _FLIPPED[operator]
    else:
        return Anywhere()
    if isinstance(literal, exp.Null):
        return Anywhere() if operator is exp.NullSafeEQ else _no_row(draft)
    found = _value(draft, literal)
    if found is None:
        return Anywhere()
    value, first, last = found
    if literal is right:
        alone = draft.word(first - 1) == sign and _column_before(draft, first - 2) and _ends(draft, last + 1)
    else:
        alone = draft.word(last + 1) == sign and _column_after(draft, last + 2) and draft.word(first - 1) in _BEFORE
    if not alone:
        return Anywhere()
    if operator in (exp.EQ, exp.NullSafeEQ):
        return KeyIn((value,))
    if key_type is not KeyType.INT:
        return Anywhere()
    strict = operator in (exp.LT, exp.GT)
    if operator in (exp.LT, exp.LTE):
        return KeyBetween(None, value, high_open=strict)
    return KeyBetween(value, None, low_open=strict)


def _no_row(draft: Draft) -> Condition:
    """A comparison with NULL is never true; but `k = NULL IS NULL` is, and IS binds in surprising ways."""
    return Anywhere() if draft.has("IS") else Nowhere()


def _in(draft: Draft, node: exp.In, key: IsKey) -> Condition:
    """key IN (…). The tree only says which list it is, by one of its literals: the list is read from the tokens."""
    items = node.args.get("expressions")
    if not key(node.this) or not items or any(node.args.get(name) for name in ("query", "unnest", "field")):
        return Anywhere()
    if all(isinstance(item, exp.Null) for item in items):
        return _no_row(draft)
    found = next((value for item in items if (value := _value(draft, item)) is not None), None)
    if found is None:
        return Anywhere()
    first = found[1] - 1
    while draft.word(first) == "," and draft.word(first - 1) == "NULL":
        first -= 2
    if draft.word(first) != "(" or draft.word(first - 1) != "IN" or not _column_before(draft, first - 2):
        return Anywhere()
    listed, behind = literal_list(draft.tokens, first)
    return KeyIn(tuple(dict.fromkeys(listed))) if listed and _ends(draft, behind) else Anywhere()


def _between(draft: Draft, node: exp.Between, key_type: KeyType) -> Condition:
    low, high = node.args["low"], node.args["high"]
    if node.args.get("symmetric"):
        return Anywhere()
    if isinstance(low, exp.Null) or isinstance(high, exp.Null):
        return _no_row(draft)
    found_low, found_high = _value(draft, low), _value(draft, high)
    if found_low is None or found_high is None or key_type is not KeyType.INT:
        return Anywhere()
    alone = (
        draft.word(found_low[1] - 1) == "BETWEEN"
        and _column_before(draft, found_low[1] - 2)
        and draft.word(found_low[2] + 1) == "AND"
        and found_high[1] == found_low[2] + 2
        and _ends(draft, found_high[2] + 1)
    )
    return KeyBetween(found_low[0], found_high[0]) if alone else Anywhere()


def _value(draft: Draft, node: exp.Expr) -> tuple[Value, int, int] | None:
    """The value of a literal node, a minus before it at most, with the first and last of its tokens."""
    negative = isinstance(node, exp.Neg)
    index = literal_index(node.this if isinstance(node, exp.Neg) else node)
    at = draft.positions.get(index, -1)
    if at < 0 or (negative and draft.word(at - 1) != "-"):
        return None
    return Value(index, negative), at - negative, at


def _ends(draft: Draft, index: int) -> bool:
    """Whether a term may end before the token at `index`."""
    return index >= len(draft.tokens) or draft.word(index) in _AFTER


def _column_before(draft: Draft, last: int) -> bool:
    """Tokens up to `last` are a column name, and what comes before it may stand before a term."""
    if last < 0 or not is_name(draft.tokens[last]):
        return False
    first = last
    while draft.word(first - 1) == "." and first >= 2 and is_name(draft.tokens[first - 2]):
        first -= 2
    return draft.word(first - 1) in _BEFORE


def _column_after(draft: Draft, first: int) -> bool:
    if first >= len(draft.tokens) or not is_name(draft.tokens[first]):
        return False
    last = first
    while draft.word(last + 1) == "." and last + 2 < len(draft.tokens) and is_name(draft.tokens[last + 2]):
        last += 2
    return _ends(draft, last + 1)
