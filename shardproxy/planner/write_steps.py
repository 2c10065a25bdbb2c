"""UPDATE and DELETE with ORDER BY or LIMIT over several shards."""

from __future__ import annotations

from dataclasses import replace

from shardproxy.planner.blocks import Facts
from shardproxy.planner.draft import Draft, literal_value
from shardproxy.planner.plan import Group
from shardproxy.planner.template import template
from shardproxy.planner.unseen import conditioned, hides, unseen
from shardproxy.planner.write_obstacles import each_obstacle
from shardproxy.planner.write_plan import Limited


def ordered_change(draft: Draft, facts: Facts, groups: tuple[Group, ...]) -> Limited | str | None:
    """How an UPDATE or DELETE that not every shard may run by itself can run after all; None when each may run it as
    it is; for people, why there is no way."""
    why = each_obstacle(draft, facts, groups)
    rest = replace(draft)
    rest.words = draft.words - {"ORDER", "LIMIT"}
    if not why or facts.nested or len(facts.sources) != 1 or each_obstacle(rest, facts, groups):
        return why or None
    if not draft.has("LIMIT"):
        return None  # the order in which rows change matters among those of one shard only
    if draft.has("ORDER"):
        return "ORDER BY and LIMIT"
    at = len(draft.tokens) - 2
    value = literal_value(draft.tokens[at + 1 :])
    if draft.word(at) != "LIMIT" or value is None:
        return why
    if hides(group.keyspace for group in groups):
        found = unseen(draft, facts, groups)
        return found if isinstance(found, str) else Limited(conditioned(draft, 0, at + 1, *found) + b" ", value)
    return Limited(template(draft, 0, at + 1) + b" ", value)
