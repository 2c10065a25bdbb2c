"""The text that each shard gets for a merge: hidden columns put in, ORDER BY by our terms, LIMIT as at execution."""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.planner.merge_plan import Branch, MergePlan, SortKey
from shardproxy.planner.template import Template, joined

_WORDS = {False: b" UNION ALL ", True: b" UNION "}


def shard_text(
    plan: MergePlan, keys: Sequence[SortKey], positions: Sequence[int], group_positions: Sequence[int], most: int
) -> Template:
    """The statement for one shard.

    keys: of the terms of `plan.order`, in order; positions: for each the number of a select item, 0 where the term is
    text; group_positions: the same for the terms of GROUP BY. most: rows, −1 for all of them.
    """
    if plan.branches:
        columns = [Template() for _ in keys]
        text = joined([_branch(branch, positions) for branch in plan.branches], _WORDS[plan.distinct])
    else:
        columns = [column for key in keys for column in key.columns]
        if plan.groups is not None:
            columns += plan.groups.hidden
        text = plan.head + _hidden(columns) + plan.items + b" " + plan.body
    if plan.group:
        grouped = [
            _at(position, len(columns), term.text) for term, position in zip(plan.group, group_positions, strict=True)
        ]
        text = text + b" GROUP BY " + joined(grouped, b", ")
    if plan.having is not None:
        text = text + b" HAVING " + plan.having
    if plan.order:
        terms = []
        for term, position in zip(plan.order, positions, strict=True):
            one = _at(position, len(columns), term.text)
            terms.append(one + b" DESC" if term.descending else one)
        text = text + b" ORDER BY " + joined(terms, b", ")
    if most >= 0:
        text = text + b" LIMIT %d" % most
    return text if plan.lock is None else text + b" " + plan.lock


def _branch(branch: Branch, positions: Sequence[int]) -> Template:
    keys = [branch.keys[position - 1] for position in positions]
    return branch.head + _hidden(keys) + branch.items + b" " + branch.body


def _hidden(columns: Sequence[Template]) -> Template:
    text = Template()
    for number, column in enumerate(columns):
        text = text + column + b" AS shp_%d, " % number
    return text


def _at(position: int, hidden: int, text: Template) -> Template:
    return Template((b"%d" % (position + hidden),)) if position else text
