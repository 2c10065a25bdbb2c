"""The text that each shard gets for a merge: hidden columns put in, ORDER BY by our terms, LIMIT as at execution."""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.planner.merge_plan import MergePlan, OrderTerm, SortKey
from shardproxy.planner.template import Template, joined


def shard_text(plan: MergePlan, keys: Sequence[SortKey], positions: Sequence[int], most: int) -> Template:
    """The statement for one shard.

    keys: of the terms of `plan.order`, in order; positions: for each the number of a select item, 0 where the term is
    text. most: rows, −1 for all of them.
    """
    hidden = Template()
    columns = [column for key in keys for column in key.columns]
    for number, column in enumerate(columns):
        hidden = hidden + column + b" AS shp_%d, " % number
    text = plan.head + hidden + plan.items + b" " + plan.body
    if plan.order:
        terms = [_term(term, at, len(columns)) for term, at in zip(plan.order, positions, strict=True)]
        text = text + b" ORDER BY " + joined(terms, b", ")
    return text if most < 0 else text + b" LIMIT %d" % most


def _term(term: OrderTerm, position: int, hidden: int) -> Template:
    text = Template((b"%d" % (position + hidden),)) if position else term.text
    return text + b" DESC" if term.descending else text
