"""admin.show.explain: one shard, many, none, errors before and after routing."""

from __future__ import annotations

import json

from shardproxy.admin.show.explain import explain_json
from shardproxy.errors import RouteError
from shardproxy.planner.plan import Group, Opcode, PinReason, Plan, Rung, StatementKind
from shardproxy.router.route import Route
from shardproxy.topology.keys import KeyType
from shardproxy.topology.maps import KeyRange, RangeMap
from shardproxy.topology.model import Keyspace, Role, Server, Shard, Snapshot

SHOP = Keyspace("shop", KeyType.INT, RangeMap([KeyRange(0, 10, 0), KeyRange(10, 20, 1)]), {}, (0, 1))
SNAPSHOT = Snapshot(
    1, tuple(Shard(n, Server(f"{n}/primary", "127.0.0.1", 1, Role.PRIMARY, n)) for n in ("a", "b")), {"shop": SHOP}
)
POINT = Plan(
    StatementKind.SELECT,
    Opcode.EQUAL_UNIQUE,
    Rung.ONE_SHARD,
    "uid = one value",
    digest_text="SELECT * FROM users WHERE uid = ?",
    groups=(Group(("users",), SHOP),),
)


def test_one_shard() -> None:
    shown = explain_json(POINT, Route((1,), True), SNAPSHOT, "SELECT * FROM users WHERE uid = 12")
    assert json.loads(json.dumps(shown)) == {
        "kind": "SELECT",
        "opcode": "EqualUnique",
        "rung": 1,
        "rung_name": "one shard",
        "reason": "uid = one value",
        "not_above": "",
        "digest": "SELECT * FROM users WHERE uid = ?",
        "keyspace": "shop",
        "tables": ["users"],
        "shards": ["b"],
        "role": "replica",
        "sql": "SELECT * FROM users WHERE uid = 12",
        "pins": [],
        "error": None,
    }


def test_equal_texts_are_one() -> None:
    shown = explain_json(POINT, Route((0, 1), False), SNAPSHOT, {0: "SELECT 1", 1: "SELECT 1"})
    assert (shown["sql"], shown["role"], shown["shards"]) == ("SELECT 1", "primary", ["a", "b"])
    assert "sql_by_shard" not in shown


def test_split_statement() -> None:
    shown = explain_json(POINT, Route((0, 1), False), SNAPSHOT, {0: "INSERT 1", 1: "INSERT 12"})
    assert shown["sql"] is None
    assert shown["sql_by_shard"] == {"a": "INSERT 1", "b": "INSERT 12"}


def test_error_of_the_values_at_hand() -> None:
    shown = explain_json(POINT, RouteError("key 99 is in no range"), SNAPSHOT, "")
    assert (shown["rung"], shown["rung_name"]) == (4, "error")
    assert shown["error"] == {"code": 9101, "sqlstate": "HY000", "message": "key 99 is in no range"}
    assert (shown["shards"], shown["role"], shown["sql"]) == ([], None, None)


def test_error_of_the_plan() -> None:
    plan = Plan(StatementKind.SELECT, Opcode.SCATTER, Rung.ERROR, "ORDER BY", error="cannot sort", error_code=9100)
    shown = explain_json(plan, None, SNAPSHOT, "")
    assert shown["error"] == {"code": 9100, "sqlstate": "HY000", "message": "cannot sort"}


def test_answered_by_the_proxy() -> None:
    plan = Plan(StatementKind.SELECT, Opcode.NONE, Rung.ONE_SHARD, "from the session", pins=(PinReason.HANDLER,))
    shown = explain_json(plan, None, SNAPSHOT, "SELECT LAST_INSERT_ID()")
    assert (shown["shards"], shown["role"], shown["sql"], shown["error"]) == ([], None, None, None)
    assert shown["pins"] == ["HANDLER"]
    assert shown["keyspace"] is None
