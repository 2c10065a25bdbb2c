"""Walks the tree once and fills Facts: sources, ties, restrictions (see blocks.py for what these mean)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlglot import exp

from shardproxy.planner import conditions
from shardproxy.planner.blocks import (
    Block,
    Facts,
    Restriction,
    Source,
    SourceKind,
    find_source,
    is_key,
    lacks_column,
    resolve_table,
)
from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.lookup_conditions import looked_up
from shardproxy.planner.plan import Anywhere, KeyIn, Nowhere
from shardproxy.sql.words import words

Ctes = frozenset[str]
_MORE_THAN_ROWS = ("group", "having", "limit", "offset", "windows")

_SELECT_ARGS = words("""
    expressions from_ joins where group having order limit offset distinct windows locks operation_modifiers
    with_ hint
""")
_CHANGE_ARGS = words("""
    this expressions where order limit with_ tables using cluster returning from_
""")


def gather(draft: Draft, tree: exp.Expr) -> Facts:
    """Facts of a query, UPDATE or DELETE. Raises UnsupportedError for what is not understood."""
    walk = _Walk(draft)
    if isinstance(tree, (exp.Update, exp.Delete)):
        walk.change(tree)
    else:
        walk.query(tree, None, frozenset())
    left = [t for t in tree.find_all(exp.Table) if id(t) not in walk.facts.visited_tables]
    if left:
        raise refuse(f"the part of this statement that names table '{left[0].name}' cannot be analysed")
    return walk.facts


class _Walk:
    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.facts = Facts()
        self.blind = conditions.opaque(draft)

    # ── queries ──

    def query(self, node: exp.Expr, outer: Block | None, ctes: Ctes) -> Block | None:
        """A SELECT, a set operation, a parenthesised query, VALUES. `outer`: the block it may refer to.

        Gives the block of a SELECT, parenthesised or not.
        """
        ctes = self._with(node, ctes)
        if isinstance(node, exp.Select):
            return self._select(node, outer, ctes)
        if isinstance(node, exp.SetOperation):
            self.facts.set_operation = True
            self.query(node.this, outer, ctes)
            self.query(node.expression, outer, ctes)
            self._expressions([node.args.get(name) for name in ("order", "limit", "offset")], None, ctes)
        elif isinstance(node, exp.Subquery):
            self._unknown_args(node, frozenset({"this", "order", "limit", "offset", "with_", "alias", "locks"}))
            block = self.query(node.this, outer, ctes)
            rest = [node.args.get(name) for name in ("order", "limit", "offset")]
            self._expressions(rest, None, ctes)
            return None if any(rest) else block
        elif isinstance(node, exp.Values):
            self.facts.derived = True
            self._expressions(node.expressions, outer, ctes)
        else:
            raise refuse("this form of query is not supported")
        return None

    def change(self, node: exp.Update | exp.Delete) -> None:
        """UPDATE or DELETE: its table references are one block."""
        self._unknown_args(node, _CHANGE_ARGS)
        ctes = self._with(node, frozenset())
        block = self._new_block(None)
        targets = node.args.get("tables") or []
        if not isinstance(node.this, exp.Expr):
            raise refuse(f"cannot read this {self.draft.kind.value}", 1064)
        self._tables(node.this, [], block, ctes)
        for target in targets:
            self.facts.visited_tables.add(id(target))
        self._where(node.args.get("where"), block)
        self._expressions(
            [*node.expressions, *(node.args.get(name) for name in ("where", "order", "limit", "returning"))],
            block,
            ctes,
        )

    def _with(self, node: exp.Expr, ctes: Ctes) -> Ctes:
        clause = node.args.get("with_")
        if clause is None:
            return ctes
        names = {cte.alias for cte in clause.expressions}
        configured = {n for keyspace in self.draft.context.snapshot.keyspaces.values() for n in keyspace.tables}
        if names & configured:
            raise refuse(f"a WITH query may not have the name of a table ('{(names & configured).pop()}'): rename it")
        self.facts.derived = True
        visible = ctes | names
        root, self.facts.root = self.facts.root, Block(None)  # the outermost block is not one of these
        for cte in clause.expressions:
            self.facts.nested += 1
            self.query(cte.this, None, visible)
        self.facts.root = root
        return visible

    def _select(self, node: exp.Select, outer: Block | None, ctes: Ctes) -> Block:
        self._unknown_args(node, _SELECT_ARGS)
        block = self._new_block(outer)
        first = node.args.get("from_")
        self._tables(first.this if first is not None else None, node.args.get("joins") or [], block, ctes)
        self._where(node.args.get("where"), block)
        for lock in node.args.get("locks") or []:
            self._lock(lock, block)
        rest = [node.args.get(n) for n in ("distinct", "where", "group", "having", "order", "limit", "offset")]
        self._expressions([*node.expressions, *rest, *(node.args.get("windows") or [])], block, ctes)
        return block

    def _lock(self, lock: exp.Expr, block: Block) -> None:
        """FOR UPDATE [OF …]: the sources whose rows it locks."""
        self.facts.locks += 1
        self.facts.visited_tables.update(id(table) for table in lock.expressions)
        named = {table.name for table in lock.expressions}
        if lock.args.get("update"):
            self.facts.locked += [s for s in block.sources if not named or s.name in named]

    def _new_block(self, outer: Block | None) -> Block:
        block = Block(outer)
        if self.facts.root is None:
            self.facts.root = block
        return block

    def _unknown_args(self, node: exp.Expr, known: frozenset[str]) -> None:
        for name, value in node.args.items():
            if value and name not in known:
                raise refuse(f"this statement has a part ({name.rstrip('_')}) that is not supported")

    # ── FROM ──

    def _tables(self, first: exp.Expr | None, joins: list[exp.Join], block: Block, ctes: Ctes) -> None:
        """All of a block's table references; ON clauses are looked at when all sources are known."""
        pending: list[_Joined] = []
        partitioned = first is not None and self._tree(first, joins, block, ctes, False, pending)
        if block is self.facts.root and not partitioned:
            self._obstacle(block, "a FROM without a sharded table")
        for joined in pending:
            self._join(joined, block)
            self._expressions([joined.join.args.get("on")], block, ctes)

    def _tree(
        self, node: exp.Expr, more: list[exp.Join], block: Block, ctes: Ctes, soft: bool, pending: list[_Joined]
    ) -> bool:
        """A table reference and the joins that follow it, left to right.

        soft: the whole stands on the nullable side of an outer join. Says whether its rows are partitioned, that is
        whether each of them comes from exactly one shard.
        """
        joins = [*(node.args.get("joins") or []), *more]
        rights = [i for i, join in enumerate(joins) if join.side.upper() == "RIGHT"]
        last_right = max(rights, default=-1)
        block.right_join = block.right_join or bool(rights)
        block.outer_join = block.outer_join or any(join.side for join in joins)
        if rights and (len(joins) > 1 or soft):
            self._obstacle(block, "a RIGHT JOIN among other joins")
        start = len(block.sources)
        partitioned = self._leaf(node, block, ctes, soft or last_right >= 0, pending)
        for i, join in enumerate(joins):
            side = self._side(join)
            middle = len(block.sources)
            above = soft or i < last_right
            right = self._tree(join.this, [], block, ctes, above or side == "LEFT", pending)
            if (side == "LEFT" and right and not partitioned) or (side == "RIGHT" and partitioned and not right):
                self._obstacle(block, f"a {side} JOIN that keeps rows of a table which every shard has")
            partitioned = partitioned or right
            pending.append(_Joined(join, side, block.sources[start:middle], block.sources[middle:], above))
        return partitioned

    def _side(self, join: exp.Join) -> str:
        self._unknown_args(join, frozenset({"this", "side", "kind", "on", "using", "method"}))
        side, kind, method = join.side.upper(), join.kind.upper(), join.method.upper()
        known = (
            side in ("", "LEFT", "RIGHT")
            and kind in ("", "INNER", "CROSS", "OUTER", "STRAIGHT_JOIN")
            and method in ("", "NATURAL")
        )
        if not known:
            raise refuse(f"{' '.join(filter(None, (method, side, kind)))} JOIN is not supported")
        return side

    def _leaf(self, node: exp.Expr, block: Block, ctes: Ctes, soft: bool, pending: list[_Joined]) -> bool:
        if isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier):
            self.facts.visited_tables.add(id(node))
            self._unknown_args(node, frozenset({"this", "db", "alias", "hints", "partition", "joins"}))
            source = resolve_table(self.draft, node, ctes, block)
            if source is None:
                return False
            source.nullable = soft
            block.sources.append(source)
            self.facts.sources.append(source)
            return source.kind in (SourceKind.SHARDED, SourceKind.SINGLE)
        if isinstance(node, exp.Subquery) and isinstance(node.this, (exp.Table, exp.Subquery)) and not node.alias:
            self._unknown_args(node, frozenset({"this", "joins"}))
            return self._tree(node.this, [], block, ctes, soft, pending)
        return self._derived(node, block, ctes)

    def _derived(self, node: exp.Expr, block: Block, ctes: Ctes) -> bool:
        """A subquery in FROM, LATERAL or not, JSON_TABLE: a source of its own; what it refers to is not traced."""
        self.facts.derived = True
        inner = node.this if isinstance(node, exp.Lateral) else node
        block.sources.append(Source(node.alias, SourceKind.DERIVED, block))
        if isinstance(inner, exp.Table) and isinstance(inner.this, exp.JSONTable):
            self.facts.visited_tables.add(id(inner))
            self._expressions([inner.this], block, ctes)
        elif isinstance(inner, exp.Subquery):
            self.facts.nested += 1
            self.query(inner.this, None, ctes)
        elif isinstance(inner, exp.Values):
            self._expressions(inner.expressions, block, ctes)
        else:
            raise refuse("a table expression in this statement is not supported")
        return False

    def _obstacle(self, block: Block, reason: str) -> None:
        if block is self.facts.root and not self.facts.obstacle:
            self.facts.obstacle = reason

    # ── conditions ──

    def _where(self, clause: exp.Expr | None, block: Block) -> None:
        if clause is None or self.blind:
            return
        for term in conditions.conjuncts(clause.this):
            self._equality(term, block, None)
        for source in block.sources:
            self._restrict(source, clause.this, block, True)

    def _join(self, joined: _Joined, block: Block) -> None:
        join = joined.join
        nullable = {"LEFT": joined.right, "RIGHT": joined.left}.get(joined.side)
        for name in self._common_columns(join, joined):
            self._merge(name, joined, block, nullable)
            block.merged.add(name)
        on = join.args.get("on")
        if on is None or self.blind:
            return
        for term in conditions.conjuncts(on):
            self._equality(term, block, nullable)
        for source in nullable if nullable is not None else [*joined.left, *joined.right]:
            self._restrict(source, on, block, nullable is None and not joined.soft)

    def _common_columns(self, join: exp.Join, joined: _Joined) -> list[str]:
        """Lower-case names that USING lists, or that NATURAL means as far as they are keys."""
        using = join.args.get("using")
        if using:
            return [node.name.lower() for node in using]
        if join.method.upper() != "NATURAL":
            return []
        keys = [{_key(s) for s in side if s.kind is SourceKind.SHARDED} for side in (joined.left, joined.right)]
        return sorted(keys[0] & keys[1])

    def _merge(self, name: str, joined: _Joined, block: Block, nullable: list[Source] | None) -> None:
        """`left.name = right.name`, where each side has one column of that name, or several merged before."""
        sides = [self._owner(side, name, block) for side in (joined.left, joined.right)]
        if sides[0] is not None and sides[1] is not None and sides[0].keyspace is sides[1].keyspace:
            self._tie(sides[0], sides[1], nullable)

    def _owner(self, side: list[Source], name: str, block: Block) -> Source | None:
        owners = [s for s in side if s.kind is SourceKind.SHARDED and _key(s) == name]
        if not owners or (len(owners) > 1 and (name not in block.merged or block.right_join)):
            return None
        return owners[0] if all(lacks_column(self.draft, s, name) for s in side if s not in owners) else None

    def _equality(self, term: exp.Expr, block: Block, nullable: list[Source] | None) -> None:
        """A term `a.key = b.key` ties a and b; nullable: the sources of an outer join's nullable side."""
        if not isinstance(term, exp.EQ) or not isinstance(term.this, exp.Column):
            return
        if not isinstance(term.expression, exp.Column):
            return
        ends = []
        for column in (term.this, term.expression):
            source = find_source(self.draft, column, block)
            if source is None or not is_key(source, column):
                return
            ends.append(source)
        if ends[0].keyspace is ends[1].keyspace:
            inner = [s for s in ends if s.block is block]
            if len(inner) == 2:
                self._tie(ends[0], ends[1], nullable)
            elif len(inner) == 1 and (nullable is None or inner[0] in nullable):
                outer = ends[1] if inner[0] is ends[0] else ends[0]
                self.facts.ties.append((inner[0], outer))

    def _tie(self, a: Source, b: Source, nullable: list[Source] | None) -> None:
        if nullable is None or a in nullable:
            self.facts.ties.append((a, b))
        if nullable is None or b in nullable:
            self.facts.ties.append((b, a))

    def _restrict(self, source: Source, clause: exp.Expr, block: Block, hard: bool) -> None:
        if source.kind is not SourceKind.SHARDED or source.keyspace is None:
            return

        def key(node: exp.Expr) -> bool:
            return (
                isinstance(node, exp.Column) and is_key(source, node) and find_source(self.draft, node, block) is source
            )

        found = conditions.condition(self.draft, clause, key, source.keyspace.key_type)
        if source.table is not None and source.table.lookups and not isinstance(found, (KeyIn, Nowhere)):
            found = conditions.all_of([found, looked_up(self.draft, clause, source, block)])
        if not isinstance(found, Anywhere):
            self.facts.restrictions.append(Restriction(source, found, hard))

    # ── subqueries in expressions ──

    def _expressions(self, nodes: Iterable[exp.Expr | None], block: Block | None, ctes: Ctes) -> None:
        for node in nodes:
            if node is not None:
                for inner in _queries(node):
                    self.facts.nested += 1
                    found = self.query(inner, block, ctes)
                    if block is not None and found is not None:
                        self._membership(inner, found, block)

    def _membership(self, inner: exp.Expr, found: Block, block: Block) -> None:
        """`key IN (SELECT key FROM …)`, negated or not: of the inner source only rows with the outer row's key matter.

        Not with outer joins inside: a NULL-extended row gives NULL, whatever is elsewhere.
        """
        parent, select = inner.parent, inner.unnest()
        if (
            not isinstance(parent, exp.In)
            or parent.args.get("query") is not inner
            or not isinstance(select, exp.Select)
        ):
            return
        if len(select.expressions) != 1 or any(select.args.get(name) for name in _MORE_THAN_ROWS) or found.outer_join:
            return
        ends = []
        for column, place in ((select.expressions[0].unalias(), found), (parent.this, block)):
            source = find_source(self.draft, column, place) if isinstance(column, exp.Column) else None
            if source is None or not is_key(source, column):
                return
            ends.append(source)
        if ends[0].block is found and ends[0].keyspace is ends[1].keyspace:
            self.facts.ties.append((ends[0], ends[1]))


@dataclass(frozen=True, slots=True)
class _Joined:
    """A join with the sources on its two sides; soft: it stands on the nullable side of an outer join."""

    join: exp.Join
    side: str
    left: list[Source]
    right: list[Source]
    soft: bool


def _key(source: Source) -> str:
    assert source.table is not None
    return (source.table.key or "").lower()


def _queries(node: exp.Expr) -> Iterator[exp.Expr]:
    """The outermost queries in an expression."""
    stack = [node]
    while stack:
        one = stack.pop()
        if isinstance(one, (exp.Query, exp.Values)) and not isinstance(one, exp.Table):
            yield one
        else:
            stack.extend(one.iter_expressions(reverse=True))
