"""The statement over scratch tables on servers where one statement may use a temporary table only once (MySQL).

Every use of a table gets a scratch table of its own: the first has the table's name and hides it, the others have
names of their own, spliced in with the old name as alias. A WITH query is read anew wherever it is used, so it is
written once for each use. Select items that are changed so get the label of their own text as an alias.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.scratch_labels import labelled
from shardproxy.planner.scratch_tables import Cte, Reference, Tables, With
from shardproxy.planner.template import Label, Template, of_tokens
from shardproxy.sql.functions import RANDOM

_MOST_USES = 64


@dataclass(slots=True)
class Spliced:
    """text: the statement; uses: for each scratch table its name and the reference that it is for; changed: the text
    is not the client's own."""

    text: Template
    uses: list[tuple[str, Reference]] = field(default_factory=list)
    changed: bool = False


def splice(
    draft: Draft,
    tables: Tables,
    taken: set[str],
    own: frozenset[tuple[str, str]] = frozenset(),
    kept: frozenset[int] = frozenset(),
) -> Spliced:
    """The statement with a table of its own for each use. taken: names that no scratch table may get.

    own: tables (database, name) whose own name is given to something else already; kept: first tokens of the
    uses that are these.
    """
    writer = _Writer(draft, tables, taken, own, kept)
    text = writer.part(0, len(draft.tokens), {})
    if writer.changed:  # now it is known which select items are: these keep their labels
        spans = writer.spans
        writer = _Writer(draft, tables, taken, own, kept)
        writer.labels = labelled(draft, spans)
        text = writer.part(0, len(draft.tokens), {})
    return Spliced(text, writer.uses, writer.changed)


def quoted(name: str) -> bytes:
    """An identifier in backticks."""
    return b"`" + name.replace("`", "``").encode("utf-8", "surrogateescape") + b"`"


Instances = dict[Cte, list[str]]


class _Writer:
    def __init__(
        self, draft: Draft, tables: Tables, taken: set[str], own: frozenset[tuple[str, str]], kept: frozenset[int]
    ) -> None:
        self.draft = draft
        self.kept = kept
        self.references = {r.first: r for r in tables.references}
        self.withs = {w.first: w for w in tables.withs}
        self.taken = set(taken)
        self.used: set[tuple[str, str]] = set(own)
        self.uses: list[tuple[str, Reference]] = []
        self.changed = False
        self.spans: list[int] = []  # first tokens of what is spliced
        self.labels: dict[int, Label] = {}  # index behind a select item → what is put there
        self.written: dict[Cte, str] = {}  # WITH query that is being written → its name there

    def part(self, first: int, end: int, instances: Instances) -> Template:
        """Tokens `first` to `end`, spliced. instances: names under which WITH queries in reach are used so far."""
        out = Template()
        at = start = first
        while at < end:
            if at in self.labels and at > first:
                out = self._join(out, start, at) + Template((self.labels[at],))
                start = at
            clause, reference = self.withs.get(at), self.references.get(at)
            if clause is not None:
                out = self._join(out, start, at)
                out += self._with(clause, min(clause.end, end), instances)
                at = start = min(clause.end, end)
            elif reference is not None:
                name = self._name(reference, instances)
                if name is not None:
                    self.changed = True
                    self.spans.append(at)
                    out = self._join(out, start, at)
                    out += b" " + name + (b" " if reference.has_alias else b" AS " + quoted(reference.name) + b" ")
                    start = reference.end
                at = reference.end
            else:
                at += 1
        out = self._join(out, start, end)
        return out + Template((self.labels[end],)) if end in self.labels and first < end else out

    def _join(self, out: Template, first: int, end: int) -> Template:
        tokens = self.draft.tokens[first:end]
        if not tokens:
            return out
        before = b" " if out.pieces and first and self.draft.tokens[first - 1].end < tokens[0].start else b""
        return out + before + of_tokens(self.draft.sql, tokens, True)

    def _name(self, reference: Reference, instances: Instances) -> bytes | None:
        """What stands for the reference; None when it stays as it is."""
        cte = reference.cte
        if cte is not None:
            if cte in self.written:  # it refers to itself
                name = self.written[cte]
            else:
                names = instances.setdefault(cte, [])
                name = self._fresh(cte.name) if names else cte.name
                names.append(name)
                if len(names) == 2:
                    self._must_repeat(cte)
            return None if name == reference.name else quoted(name)
        table = (reference.database, reference.name)
        qualified = (reference.database or self.draft.context.schema or "", reference.name)
        if reference.first in self.kept:
            return None
        if qualified not in self.used:
            self.used.add(qualified)
            self.uses.append((reference.name, reference))
            return None
        name = self._fresh(table[1])
        self.uses.append((name, reference))
        if len(self.uses) > _MOST_USES:
            raise refuse(f"the statement uses tables in more than {_MOST_USES} places")
        return (quoted(reference.database) + b"." if reference.database else b"") + quoted(name)

    def _fresh(self, name: str) -> str:
        number = 2
        while f"{name[:58]}__{number}" in self.taken:
            number += 1
        made = f"{name[:58]}__{number}"
        self.taken.add(made)
        return made

    def _must_repeat(self, cte: Cte) -> None:
        """A WITH query that is written twice must give the same rows twice."""
        inside = {t.upper for t in self.draft.tokens[cte.opening : cte.closing]}
        if "LIMIT" in inside or "FETCH" in inside:
            raise refuse(f"WITH query '{cte.name}' has a LIMIT and is used more than once, over several shards")
        random = sorted(RANDOM & {word.lower() for word in inside})
        if random:
            raise refuse(f"WITH query '{cte.name}' has {random[0].upper()}() and is used more than once")

    def _with(self, clause: With, end: int, outer: Instances) -> Template:
        self.spans.append(clause.first)
        instances: Instances = dict(outer)
        for cte in clause.ctes:
            instances[cte] = []
        body = self.part(clause.body, end, instances)
        definitions: list[Template] = []
        for cte in reversed(clause.ctes):
            for name in reversed(instances[cte] or [cte.name]):
                definitions.insert(0, self._definition(cte, name, instances))
        out = Template((b"WITH RECURSIVE " if clause.recursive else b"WITH ",))
        for i, definition in enumerate(definitions):
            out += (b", " if i else b"") + definition
        return out + b" " + body

    def _definition(self, cte: Cte, name: str, instances: Instances) -> Template:
        before = self.written.get(cte)
        self.written[cte] = name
        inner = self.part(cte.opening + 1, cte.closing, instances)
        if before is None:
            del self.written[cte]
        else:
            self.written[cte] = before
        head = of_tokens(self.draft.sql, self.draft.tokens[cte.first + 1 : cte.opening + 1])
        return (b" " + quoted(name) + b" ") + head + inner + b")"
