"""Conditions are upper bounds: a row that satisfies the WHERE is on a shard that the condition allows."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from shardproxy.planner.conditions import all_of, any_of
from shardproxy.planner.lookup_plan import LookedUp
from shardproxy.planner.plan import AllOf, AnyOf, Anywhere, Condition, KeyBetween, KeyIn, Nowhere, Rung, Value
from shardproxy.planner.statement import plan_statement
from shardproxy.sql.digest import scan
from shardproxy.sql.modes import SqlModes
from tests.unit.planner.world import context

Row = dict[str, int | None]
NUMBERS = st.integers(-4, 12)


@dataclass(frozen=True)
class Term:
    """SQL and what it is worth for a row, in three-valued logic (None: unknown)."""

    sql: str

    def value(self, row: Row) -> bool | None:
        raise NotImplementedError


@dataclass(frozen=True)
class Compare(Term):
    column: str
    sign: str
    number: int | None

    def value(self, row: Row) -> bool | None:
        have = row[self.column]
        if self.sign == "<=>":
            return have == self.number
        if have is None or self.number is None:
            return None
        return {
            "=": have == self.number,
            "<": have < self.number,
            ">": have > self.number,
            "<=": have <= self.number,
            ">=": have >= self.number,
            "<>": have != self.number,
        }[self.sign]


@dataclass(frozen=True)
class In(Term):
    column: str
    numbers: tuple[int | None, ...]
    negated: bool

    def value(self, row: Row) -> bool | None:
        have = row[self.column]
        if have is None:
            return None
        found: bool | None = have in self.numbers
        if not found and None in self.numbers:
            found = None
        return found if not self.negated or found is None else not found


@dataclass(frozen=True)
class Between(Term):
    column: str
    low: int
    high: int

    def value(self, row: Row) -> bool | None:
        have = row[self.column]
        return None if have is None else self.low <= have <= self.high


@dataclass(frozen=True)
class Joined(Term):
    word: str
    terms: tuple[Term, ...]

    def value(self, row: Row) -> bool | None:
        values = [term.value(row) for term in self.terms]
        if self.word == "XOR":
            return None if None in values else bool(sum(map(bool, values)) % 2)
        decisive = self.word == "OR"
        if decisive in values:
            return decisive
        return None if None in values else not decisive


@dataclass(frozen=True)
class Not(Term):
    inner: Term

    def value(self, row: Row) -> bool | None:
        found = self.inner.value(row)
        return None if found is None else not found


def shown(number: int | None) -> str:
    return "NULL" if number is None else str(number)


COLUMNS = st.sampled_from(["uid", "uid", "uid", "events.uid", "n"])
MAYBE = st.one_of(NUMBERS, NUMBERS, NUMBERS, st.none())


@st.composite
def compares(draw: st.DrawFn) -> Term:
    column, number = draw(COLUMNS), draw(MAYBE)
    sign = draw(st.sampled_from(["=", "=", "=", "<", ">", "<=", ">=", "<>", "<=>"]))
    flipped = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(sign, sign)
    sql = f"{column} {sign} {shown(number)}" if draw(st.booleans()) else f"{shown(number)} {flipped} {column}"
    return Compare(sql, column.split(".")[-1], sign, number)


@st.composite
def lists(draw: st.DrawFn) -> Term:
    column, numbers, negated = draw(COLUMNS), tuple(draw(st.lists(MAYBE, min_size=1, max_size=4))), draw(st.booleans())
    sql = f"{column} {'NOT ' if negated else ''}IN ({', '.join(map(shown, numbers))})"
    return In(sql, column.split(".")[-1], numbers, negated)


@st.composite
def betweens(draw: st.DrawFn) -> Term:
    column, low, high = draw(COLUMNS), draw(NUMBERS), draw(NUMBERS)
    return Between(f"{column} BETWEEN {low} AND {high}", column.split(".")[-1], low, high)


def combined(inner: st.SearchStrategy[Term]) -> st.SearchStrategy[Term]:
    """AND, OR, XOR of terms, each in parentheses where MySQL's precedence asks for them, and sometimes where not."""

    @st.composite
    def build(draw: st.DrawFn) -> Term:
        word = draw(st.sampled_from(["AND", "AND", "AND", "OR", "OR", "XOR"]))
        terms = tuple(draw(st.lists(inner, min_size=2, max_size=3)))
        sign = draw(st.sampled_from({"AND": ["AND", "&&"], "OR": ["OR", "||"], "XOR": ["XOR"]}[word]))
        binds = {"AND": 3, "XOR": 2, "OR": 1}
        texts = []
        for term in terms:
            loose = isinstance(term, Joined) and binds[term.word] < binds[word]
            loose = loose or isinstance(term, Not)
            texts.append(f"({term.sql})" if loose or draw(st.booleans()) else term.sql)
        return Joined(f" {sign} ".join(texts), word, terms)

    return st.one_of(build(), inner.map(lambda term: Not(f"NOT ({term.sql})", term)))


TERMS = st.recursive(st.one_of(compares(), lists(), betweens()), combined, max_leaves=8)


def allows(condition: Condition, key: int, literals: list[bytes]) -> bool:
    def number(value: Value) -> int:
        return -int(literals[value.index]) if value.negative else int(literals[value.index])

    match condition:
        case Anywhere():
            return True
        case Nowhere():
            return False
        case KeyIn(values):
            return key in map(number, values)
        case KeyBetween(low, high, low_open, high_open):
            above = low is None or (key > number(low) if low_open else key >= number(low))
            return above and (high is None or (key < number(high) if high_open else key <= number(high)))
        case AllOf(parts):
            return all(allows(part, key, literals) for part in parts)
        case AnyOf(parts):
            return any(allows(part, key, literals) for part in parts)
        case LookedUp():
            raise AssertionError("no table here has a lookup index")


@given(TERMS)
def test_a_matching_row_is_where_the_condition_says(term: Term) -> None:
    sql = f"SELECT * FROM events WHERE {term.sql}".encode()
    plan = plan_statement(sql, context())
    assert plan.rung is not Rung.ERROR
    _, literals = scan(sql, SqlModes())
    for key in range(-5, 14):
        for n in (None, *range(-4, 13, 3)):
            if term.value({"uid": key, "n": n}):
                assert allows(plan.groups[0].condition, key, literals), sql


def test_the_property_sees_conditions_at_work() -> None:
    """The bound is not Anywhere wherever a key comparison stands in an AND: the property above would be empty."""
    for where in (
        "uid = 5",
        "n = 3 AND uid = 5",
        "(uid = 5 OR uid = 6) AND n > 3",
        "uid BETWEEN 1 AND 3 && n IN (1, 2)",
    ):
        plan = plan_statement(f"SELECT * FROM events WHERE {where}".encode(), context())
        assert plan.groups[0].condition != Anywhere()


ONE, TWO = Value(1), Value(2)


def test_all_of_keeps_what_restricts() -> None:
    assert all_of([]) == Anywhere()
    assert all_of([Anywhere(), KeyIn((ONE,))]) == KeyIn((ONE,))
    assert all_of([KeyIn((ONE,)), Nowhere()]) == Nowhere()
    assert all_of([KeyBetween(ONE, None), KeyBetween(None, TWO, high_open=True)]) == KeyBetween(ONE, TWO, False, True)
    assert all_of([KeyIn((ONE,)), AllOf((KeyIn((TWO,)), KeyIn((ONE,))))]) == AllOf((KeyIn((ONE,)), KeyIn((TWO,))))


def test_any_of_is_spoilt_by_anywhere() -> None:
    assert any_of([KeyIn((ONE,)), Anywhere()]) == Anywhere()
    assert any_of([KeyIn((ONE,)), KeyIn((TWO, ONE))]) == KeyIn((ONE, TWO))
    assert any_of([Nowhere(), Nowhere()]) == Nowhere()
    assert any_of([KeyBetween(ONE, TWO), KeyIn((ONE,)), Nowhere()]) == AnyOf((KeyIn((ONE,)), KeyBetween(ONE, TWO)))
