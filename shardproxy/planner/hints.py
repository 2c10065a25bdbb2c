"""Hints in comments: /*shardproxy: primary*/ and /*shardproxy: shard=NAME*/, several separated by commas."""

from __future__ import annotations

from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.plan import Plan

_MARK = "shardproxy:"


def hints(draft: Draft) -> Plan | None:
    """Sets `primary` and `shard_hint`. An unknown hint is an error: a misspelt one must not be ignored silently."""
    for comment in draft.comments:
        text = comment.strip()
        if not text.lower().startswith(_MARK):
            continue
        for hint in text[len(_MARK) :].split(","):
            name, _, value = hint.strip().partition("=")
            if name.strip().lower() == "primary" and not value:
                draft.primary = True
            elif name.strip().lower() == "shard" and value.strip():
                draft.shard_hint = _known_shard(draft, value.strip())
            else:
                raise refuse(f"unknown hint '{hint.strip()}': known are primary and shard=NAME")
    return None


def _known_shard(draft: Draft, name: str) -> str:
    shards = draft.context.snapshot.shards
    if all(shard.name != name for shard in shards):
        known = ", ".join(shard.name for shard in shards)
        raise refuse(f"the hint names shard '{name}', which does not exist; shards are: {known}")
    return name
