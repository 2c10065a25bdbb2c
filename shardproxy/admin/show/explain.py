"""`shardctl explain "SQL"`: what would happen to a statement.

{"kind": "SELECT", "opcode": "EqualUnique", "rung": 1, "rung_name": "one shard",
 "reason": "key uid = literal", "not_above": "", "digest": "SELECT * FROM users WHERE uid = ?", "keyspace": "shop",
 "tables": ["users"], "shards": ["a"], "role": "replica", "sql": "SELECT * FROM users WHERE uid = 7",
 "pins": [], "error": null}

`sql` is the text that every one of the shards gets; when they get different ones it is null and `sql_by_shard`
(shard → text) is there as well. `role` is null when no server is asked. `error`, when not null, is what the client
would get: {"code": 9101, "sqlstate": "HY000", "message": "…"}; `shards` is empty then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shardproxy.errors import SqlError
from shardproxy.planner.plan import Plan, Rung
from shardproxy.router.route import Route
from shardproxy.topology.model import Role, Snapshot

_RUNG_NAMES = {Rung.ONE_SHARD: "one shard", Rung.MERGE: "merge", Rung.SCRATCH: "scratch", Rung.ERROR: "error"}


def explain_json(
    plan: Plan, outcome: Route | SqlError | None, snapshot: Snapshot, texts: Mapping[int, str] | str
) -> dict[str, Any]:
    """The explanation as in the module's docstring.

    outcome  where the statement would go; the error that it would get; None when the proxy answers by itself
    texts    the statement as servers would get it: one text, or shard index → text
    """
    route = outcome if isinstance(outcome, Route) else None
    error = outcome if isinstance(outcome, SqlError) else None
    if plan.rung is Rung.ERROR and error is None:
        error = SqlError(plan.error, plan.error_code)
    rung = plan.rung if error is None else Rung.ERROR
    shown: dict[str, Any] = {
        "kind": plan.kind.value,
        "opcode": plan.opcode.value,
        "rung": int(rung),
        "rung_name": _RUNG_NAMES[rung],
        "reason": plan.reason,
        "not_above": plan.not_above,
        "digest": plan.digest_text,
        "keyspace": _keyspace(plan),
        "tables": _tables(plan),
        "shards": [],
        "role": None,
        "sql": None,
        "pins": [pin.value for pin in plan.pins],
        "error": None,
    }
    if error is not None:
        return shown | {"error": {"code": error.code, "sqlstate": error.sqlstate, "message": str(error)}}
    if route is None:
        return shown
    role = Role.REPLICA if route.replica else Role.PRIMARY
    names = [snapshot.shards[i].name for i in route.shards]
    return shown | {"shards": names, "role": role.value, **_texts(route, snapshot, texts)}


def _texts(route: Route, snapshot: Snapshot, texts: Mapping[int, str] | str) -> dict[str, Any]:
    if isinstance(texts, str):
        return {"sql": texts}
    by_shard = {snapshot.shards[i].name: texts[i] for i in route.shards}
    if len(set(by_shard.values())) == 1:
        return {"sql": next(iter(by_shard.values()))}
    return {"sql": None, "sql_by_shard": by_shard}


def _keyspace(plan: Plan) -> str | None:
    if plan.keyspace is not None:
        return plan.keyspace.name
    names = {group.keyspace.name for group in plan.groups}
    return names.pop() if len(names) == 1 else None


def _tables(plan: Plan) -> list[str]:
    return list(plan.tables) or list(dict.fromkeys(t for group in plan.groups for t in group.tables))
