"""GROUP BY and aggregates whose groups have rows on several shards: what each shard computes and how it is combined."""

from __future__ import annotations

from shardproxy.planner.blocks import Block
from shardproxy.planner.draft import Draft, is_name
from shardproxy.planner.merge_concat import Concatenation, group_concat, json_array
from shardproxy.planner.merge_having import Conditions
from shardproxy.planner.merge_plan import Cell, Combine, FinalTerm, GroupMerge, Having, Held, OrderTerm, Rollup, SortKey
from shardproxy.planner.select_parts import Item, Parts, Span, Term, Texts, as_written, bare_column, split
from shardproxy.planner.sort_keys import is_one_call, key_of, owner, sort_key
from shardproxy.planner.template import Template
from shardproxy.sql.functions import AGGREGATES
from shardproxy.sql.words import words

_COMBINED = {
    "count": Combine.COUNT,
    "sum": Combine.SUM,
    "avg": Combine.AVG,
    "min": Combine.MIN,
    "max": Combine.MAX,
    "bit_and": Combine.BIT_AND,
    "bit_or": Combine.BIT_OR,
    "bit_xor": Combine.BIT_XOR,
    "any_value": Combine.ANY,
    "group_concat": Combine.CONCAT,
    "json_arrayagg": Combine.ARRAY,
}
_JOINED = (Combine.CONCAT, Combine.ARRAY)
_COMPARED = words("count sum avg min max")  # in HAVING
_UNSURE = words("float double timestamp")  # of whose values is not certain which are equal to a server
Text = tuple[str, ...]


class Grouping:
    """Finds the keys, the cells and the order of a grouped SELECT. Its functions give a reason (text) when they
    cannot."""

    def __init__(self, draft: Draft, parts: Parts, root: Block, texts: Texts) -> None:
        self.draft = draft
        self.parts = parts
        self.root = root
        self.texts = texts
        self.hidden: list[Template] = []
        self.cells: list[Cell] = []
        self.cell_of: dict[Text, int] = {}
        self.final: list[FinalTerm] = []
        self.choices: list[FinalTerm] = []
        self.values: dict[Text, Span] | None = None  # arguments of DISTINCT aggregates, and what texts are ordered by
        self.descending: dict[Text, bool] = {}  # of those: how it is ordered
        self.compares_means = False  # HAVING does

    def plan(self, ordered: list[tuple[Term, Span | None]]) -> tuple[tuple[OrderTerm, ...], GroupMerge] | str:
        """The terms by which the shards sort, and the merge. ordered: ORDER BY with what each term means, None for a
        position."""
        if self.parts.distinct:
            return "DISTINCT of groups with rows on several shards"
        keys = self._keys()
        if isinstance(keys, str):
            return keys
        wanted = self._visible()
        if isinstance(wanted, str):
            return wanted
        for item, call in wanted:
            problem = self._cell(call, item)
            if problem:
                return problem
        having: Having | None = None
        if self.parts.having is not None:
            chosen = Conditions(self.draft, self.parts.having, lambda span: self._held(span, keys)).read()
            if isinstance(chosen, str):
                return chosen
            having = chosen
        order = self._order(keys, ordered)
        if isinstance(order, str):
            return order
        if self.final and any(cell.combine in _JOINED for cell in self.cells):
            # MySQL sorts a temporary table, whose texts have another type.
            return "GROUP_CONCAT or JSON_ARRAYAGG, and ORDER BY something else than groups"
        rollup: Rollup | None = None
        if self.parts.rollup:
            found = self._rollup(keys)
            if isinstance(found, str):
                return found
            rollup = found
        if having is not None and self.final and self.compares_means and not self.draft.context.mariadb:
            # MySQL compares it rounded or not, by what it takes a temporary table for.
            return "HAVING with AVG() and ORDER BY something else than groups"
        outer = -1
        if self.values is not None:
            outer = len(order)
            values = self._distinct_values(keys)
            if isinstance(values, str):
                return values
            order += values
        return order, GroupMerge(
            tuple(self.hidden), tuple(self.cells), tuple(self.final), tuple(self.choices), having, outer,
            outer >= 0 and not self.parts.group, rollup,
        )  # fmt: skip

    # ── GROUP BY ──

    def _keys(self) -> dict[Text, OrderTerm] | str:
        """For each term of GROUP BY, by its text, how the shards sort by it."""
        keys: dict[Text, OrderTerm] = {}
        for number, term in enumerate(self.parts.group):
            text = as_written(self.draft, term.span.first, term.span.end)
            if term.position is not None:
                if any(item.star for item in self.parts.items):
                    return "GROUP BY a position with *"
                keys[f"position {number}",] = OrderTerm(text, None, False, term.position)
                continue
            meant = self._grouped_by(term)
            if isinstance(meant, str):
                return meant
            key = sort_key(self.draft, meant, self.root, whole=True, grouped=True)
            if isinstance(key, str):
                return key
            keys[self.texts.of(meant)] = OrderTerm(text, key, False)
        return keys

    def _grouped_by(self, term: Term) -> Span | str:
        """What a term means, in GROUP BY and in ORDER BY alike: a column before an alias there, an alias here."""
        name = bare_column(self.draft.tokens[term.span.first : term.span.end])
        named = [i for i in self.parts.items if i.alias is not None and i.alias.lower() == name.lower()]
        if not named:
            return term.span
        same = all(self.texts.of(item.span) == self.texts.of(term.span) for item in named)
        if same or (len(named) == 1 and self._no_column(name)):
            return named[0].span
        return "GROUP BY a name that is an alias and may be a column"

    def _no_column(self, name: str) -> bool:
        """No table of FROM has a column of this name."""
        catalog = self.draft.context.catalog
        for source in self.root.sources:
            schema = catalog.get(source.database, source.table.name) if source.table is not None else None
            if schema is None or schema.column(name) is not None:
                return False
        return True

    # ── the select list ──

    def _visible(self) -> list[tuple[int, Span]] | str:
        """Items that are aggregates: their number from 0 and their span."""
        calls: list[tuple[int, Span]] = []
        for number, item in enumerate(self.parts.items):
            if item.star:
                return "* of groups with rows on several shards"
            if self._aggregates(item.span):
                calls.append((number, item.span))
            elif not self.parts.group and not self._constant(item):
                return "a column beside aggregates without GROUP BY"
        return calls

    def _aggregates(self, span: Span) -> bool:
        draft = self.draft
        return any(
            draft.word(i).lower() in AGGREGATES and draft.word(i + 1) == "(" for i in range(span.first, span.end - 1)
        )

    def _constant(self, item: Item) -> bool:
        return not any(
            is_name(token) and self.draft.word(i + 1) != "("
            for i, token in enumerate(self.draft.tokens[item.span.first : item.span.end], item.span.first)
        )

    def _cell(self, span: Span, column: int) -> str:
        """Add the cell of an aggregate that is item `column` of the select list, −1 for a hidden one."""
        draft = self.draft
        name = draft.word(span.first).lower()
        combine = _COMBINED.get(name)
        inner = Span(span.first + 2, span.end - 1)
        if combine is None or not is_one_call(draft, span):
            what = f"{name.upper()}()" if combine is None and name in AGGREGATES else "an expression of aggregates"
            return f"{what} over groups with rows on several shards"
        if draft.word(inner.first) == "ALL" or any(draft.word(i) == "SELECT" for i in range(inner.first, inner.end)):
            return f"{name.upper()}(ALL …) or of a subquery over groups with rows on several shards"
        if combine in _JOINED:
            return self._joined(span, inner, combine, column)
        distinct = draft.word(inner.first) == "DISTINCT"
        if distinct:
            problem = self._of_distinct(Span(inner.first + 1, inner.end), combine)
            if problem:
                return f"{name.upper()}(DISTINCT …) {problem}"
        text = as_written(draft, span.first, span.end)
        argument = as_written(draft, inner.first, inner.end) if inner.end > inner.first else Template()
        shown = column >= 0
        if not shown:
            column = len(self.hidden)
            self.hidden.append(text)
        partials, key = -1, None
        if combine is Combine.AVG:
            partials = len(self.hidden)
            self.hidden += [b"SUM(" + argument + b")", b"COUNT(" + argument + b")"]
        elif combine in (Combine.MIN, Combine.MAX):
            found = owner(draft, Span(inner.first + distinct, inner.end), self.root)
            made = key_of(text, found[1] if found is not None else None, compared_as_text=True)
            if isinstance(made, str):
                return made
            partials, key = len(self.hidden), made
            self.hidden += made.columns
        self.cell_of[self.texts.of(span)] = len(self.cells)
        several = distinct and combine not in (Combine.MIN, Combine.MAX)
        self.cells.append(Cell(combine, column, shown, partials, key, several))
        return ""

    def _joined(self, span: Span, inner: Span, combine: Combine, column: int) -> str:
        """Add the cell of GROUP_CONCAT or JSON_ARRAYAGG."""
        read = group_concat if combine is Combine.CONCAT else json_array
        found = read(self.draft, inner, self.root)
        if isinstance(found, str):
            return found
        if column < 0 or self.parts.rollup:
            return "GROUP_CONCAT or JSON_ARRAYAGG elsewhere than in the select list, or with ROLLUP"
        if found.distinct or found.order:
            problem = self._in_order(found)
            if problem:
                return problem
        self.cell_of[self.texts.of(span)] = len(self.cells)
        self.cells.append(Cell(combine, column, True, len(self.hidden), None, found.distinct))
        self.hidden += found.limits
        return ""

    def _in_order(self, found: Concatenation) -> str:
        """Take what GROUP_CONCAT is ordered by, and its DISTINCT values, as keys; gives why that cannot be."""
        order = {self.texts.of(term.span): term for term in found.order}
        wanted = {text: term.span for text, term in order.items()}
        if found.distinct:
            arguments = {self.texts.of(span): span for span in found.arguments}
            if not wanted.keys() <= arguments.keys():
                return "GROUP_CONCAT of DISTINCT values ordered by something else"
            wanted |= {text: span for text, span in arguments.items() if text not in wanted}
        falls = {text: True for text, term in order.items() if term.descending}
        if self.values is not None and (list(self.values) != list(wanted) or self.descending != falls):
            return "GROUP_CONCAT in another order, or of other DISTINCT values, than another aggregate"
        self.values, self.descending = wanted, falls
        return ""

    # ── DISTINCT in aggregates ──

    def _of_distinct(self, inner: Span, combine: Combine) -> str:
        """Take the arguments of a DISTINCT aggregate as keys; gives why that cannot be."""
        if combine in (Combine.MIN, Combine.MAX):
            return ""  # the least of the distinct values is the least of all
        if combine not in (Combine.COUNT, Combine.SUM, Combine.AVG):
            return "over groups with rows on several shards"
        arguments = {self.texts.of(span): span for span in split(self.draft, inner.first, inner.end)}
        if self.values is not None and self.values.keys() != arguments.keys():
            return "of different values over groups with rows on several shards"
        self.values = arguments
        return ""

    def _distinct_values(self, keys: dict[Text, OrderTerm]) -> tuple[OrderTerm, ...] | str:
        """The terms by which the shards group and sort besides those of GROUP BY: the DISTINCT values."""
        assert self.values is not None
        if not self.parts.group and len(self.cells) < len(self.parts.items):
            return "DISTINCT in aggregates beside a constant"  # which is shown also when there is no row
        terms: list[OrderTerm] = []
        for text, span in self.values.items():
            if text in keys:
                continue
            tokens = self.draft.tokens[span.first : span.end]
            other = {item.name for item in self.parts.items if item.name and self.texts.of(item.span) != text}
            names = {
                token.text.lower()
                for i, token in enumerate(tokens)
                if is_name(token) and self.draft.word(span.first + i + 1) != "("
                and (i == 0 or tokens[i - 1].text != ".")
            }  # fmt: skip
            if not names or names & other:
                return "DISTINCT in aggregates of a constant or of a name that a select item has"
            found = owner(self.draft, span, self.root)
            if found is not None and found[1].data_type in _UNSURE:
                return f"DISTINCT in aggregates of values of type {found[1].data_type}"
            key = sort_key(self.draft, span, self.root, whole=True, grouped=True)
            if isinstance(key, str):
                return key
            falls = self.descending.get(text, False)
            terms.append(OrderTerm(as_written(self.draft, span.first, span.end), key, falls))
        return tuple(terms)

    # ── ROLLUP ──

    def _rollup(self, keys: dict[Text, OrderTerm]) -> Rollup | str:
        """What super-aggregate groups show; a reason where that is not certain."""
        draft, parts = self.draft, self.parts
        if parts.order:
            return "ROLLUP and ORDER BY"  # MySQL sorts a temporary table, whose columns have other types
        if parts.lock < len(draft.tokens):
            return "ROLLUP and a lock"
        if self.values is not None or any(cell.combine is Combine.ANY for cell in self.cells):
            return "ROLLUP of DISTINCT or of any values"
        if len(keys) < len(parts.group) or any(
            not bare_column(draft.tokens[term.span.first : term.span.end]) for term in parts.group
        ):
            return "ROLLUP of something else than different columns"
        spans = [self._grouped_by(term) for term in parts.group]
        terms = [self.texts.of(span) for span in spans if isinstance(span, Span)]
        if not all(isinstance(span, Span) and owner(draft, span, self.root) is not None for span in spans):
            return "ROLLUP of something else than different columns"
        items = [-1] * len(terms)
        for number, item in enumerate(parts.items):
            if self._aggregates(item.span):
                continue
            text = self.texts.of(item.span)
            # Of two items that are one column, MariaDB shows NULL for the first only.
            if text not in terms or items[terms.index(text)] >= 0:
                return "ROLLUP beside something else than its columns, each once, and aggregates"
            items[terms.index(text)] = number
        if self.compares_means and not draft.context.mariadb:
            return "ROLLUP and HAVING with AVG()"
        described = as_written(draft, 0, parts.body_end) + b" LIMIT 0"
        return Rollup(tuple(items), not draft.context.mariadb, described)

    # ── HAVING ──

    def _held(self, span: Span, keys: dict[Text, OrderTerm]) -> Held | str:
        """The value that an operand of HAVING means."""
        text = self.texts.of(span)
        if self._aggregates(span):
            if self.draft.word(span.first).lower() not in _COMPARED:
                return f"HAVING with {self.draft.word(span.first)}()"
            if text not in self.cell_of:
                problem = self._cell(span, -1)
                if problem:
                    return problem
            return self._held_cell(self.cell_of[text])
        if self.parts.rollup and not self._names_cell(span):
            return "ROLLUP and HAVING with grouped columns"
        name = bare_column(self.draft.tokens[span.first : span.end])
        named = [item for item in self.parts.items if name and item.name == name.lower()]
        whole = span.end - span.first > 1
        if text in keys and name and (whole or all(self.texts.of(item.span) == text for item in named)):
            self.hidden.append(as_written(self.draft, span.first, span.end))
            return Held(column=len(self.hidden) - 1)
        if whole or len(named) != 1 or not self._no_column(name):
            return "HAVING with a name that is neither certainly a column of GROUP BY nor an alias"
        meant = self.texts.of(named[0].span)
        if meant in self.cell_of:
            return self._held_cell(self.cell_of[meant])
        if meant not in keys:
            return "HAVING with an alias of something that is not grouped by"
        self.hidden.append(as_written(self.draft, named[0].span.first, named[0].span.end))
        return Held(column=len(self.hidden) - 1)

    def _names_cell(self, span: Span) -> bool:
        """Whether it is the name of a select item that is an aggregate."""
        name = bare_column(self.draft.tokens[span.first : span.end])
        return any(item.name == name.lower() and self._aggregates(item.span) for item in self.parts.items)

    def _held_cell(self, number: int) -> Held | str:
        combine = self.cells[number].combine
        if combine is Combine.ANY or combine in _JOINED:
            return "HAVING with ANY_VALUE(), GROUP_CONCAT() or JSON_ARRAYAGG()"
        if combine is Combine.AVG and self.cells[number].distinct and not self.draft.context.mariadb:
            return "HAVING with AVG(DISTINCT …)"
        self.compares_means |= combine is Combine.AVG
        return Held(cell=number)

    # ── ORDER BY ──

    def _order(
        self, keys: dict[Text, OrderTerm], ordered: list[tuple[Term, Span | None]]
    ) -> tuple[OrderTerm, ...] | str:
        """The shards' order: that of the statement as far as it is by group keys alone, then the other keys."""
        first: dict[Text, OrderTerm] = {}
        by_keys = all(span is not None and self.texts.of(span) in keys for _, span in ordered)
        for term, span in ordered:
            if span is None:
                self.final.append(FinalTerm(term.descending, position=term.position))
                problem = self._choices()
                if problem:
                    return problem
                continue
            text = self.texts.of(span)
            if by_keys:
                key = keys[text]
                if text not in first:
                    first[text] = OrderTerm(key.text, key.key, term.descending)
                continue
            problem = self._final(term, span, keys.get(text))
            if problem:
                return problem
        return (*first.values(), *(key for text, key in keys.items() if text not in first))

    def _final(self, term: Term, span: Span, key: OrderTerm | None) -> str:
        if key is not None or not self._aggregates(span):
            sort = key.key if key is not None else sort_key(self.draft, span, self.root, grouped=True)
            if not isinstance(sort, SortKey):
                return sort or "ORDER BY a position among groups with rows on several shards"
            self.final.append(self._hide(sort, term.descending))
            return ""
        text = self.texts.of(span)
        if text not in self.cell_of:
            problem = self._cell(span, -1)
            if problem:
                return problem
        self.final.append(FinalTerm(term.descending, cell=self.cell_of[text]))
        return ""

    def _hide(self, key: SortKey, descending: bool) -> FinalTerm:
        """A term by a key whose columns are added here."""
        made = FinalTerm(descending, column=len(self.hidden), key=key)
        self.hidden += key.columns
        return made

    def _choices(self) -> str:
        """What a position in ORDER BY can mean: for each select item its term."""
        if self.choices:
            return ""
        for item in self.parts.items:
            text = self.texts.of(item.span)
            if text in self.cell_of:
                self.choices.append(FinalTerm(False, cell=self.cell_of[text]))
                continue
            key = sort_key(self.draft, item.span, self.root, grouped=True)
            if isinstance(key, str):
                return key
            self.choices.append(self._hide(key, False))
        return ""
