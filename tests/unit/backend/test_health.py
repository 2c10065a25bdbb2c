"""What SHOW REPLICA STATUS says of a replica, in MySQL's words and in MariaDB's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shardproxy.backend.control import ControlConnection
from shardproxy.backend.health import last_of_domains, look, replica_health
from shardproxy.router.balance import ServerHealth
from shardproxy.topology.model import Role, Server

REPLICA = Server("a/replica1", "127.0.0.1", 3307, Role.REPLICA, "a")
PRIMARY = Server("a/primary", "127.0.0.1", 3306, Role.PRIMARY, "a")
NAMES = {
    "mysql": ("replica_io_running", "replica_sql_running", "seconds_behind_source"),
    "mariadb": ("slave_io_running", "slave_sql_running", "seconds_behind_master"),
}
BOTH = pytest.mark.parametrize("flavor", ["mysql", "mariadb"])


def row(flavor: str, receiver: str = "Yes", applier: str = "Yes", behind: Any = 0, **more: Any) -> dict[str, Any]:
    """Values as the driver gives them: numbers, texts, None; errors are empty texts when there are none."""
    errors = {"last_io_errno": 0, "last_io_error": "", "last_sql_errno": 0, "last_sql_error": ""}
    return dict(zip(NAMES[flavor], (receiver, applier, behind), strict=True)) | errors | more


@BOTH
@pytest.mark.parametrize("behind", [0, 7, "7"])
def test_a_replica_that_follows(behind: Any, flavor: str) -> None:
    assert replica_health(row(flavor, behind=behind)) == ServerHealth(True, float(behind))


@BOTH
def test_a_replica_that_does_not_know_its_lag(flavor: str) -> None:
    assert replica_health(row(flavor, behind=None)) == ServerHealth(True, None, "the replica does not know its lag")


@BOTH
@pytest.mark.parametrize(
    ("receiver", "applier"), [("No", "Yes"), ("Connecting", "Yes"), ("Preparing", "Yes"), ("Yes", "No"), ("No", "No")]
)
def test_a_replica_that_does_not_follow_has_no_lag_whatever_it_says(receiver: str, applier: str, flavor: str) -> None:
    seen = replica_health(row(flavor, receiver, applier, 0))
    assert (seen.up, seen.lag) == (True, None)
    assert seen.reason == f"replication does not run (receiver: {receiver}, applier: {applier})"


@BOTH
@pytest.mark.parametrize("which", ["last_io_error", "last_sql_error"])
def test_the_error_that_stopped_replication_is_told(which: str, flavor: str) -> None:
    seen = replica_health(row(flavor, "Yes", "No", None, **{which: "Duplicate entry '1'"}))
    assert seen.reason == "replication does not run (Duplicate entry '1')"


def test_a_row_without_the_columns_is_no_running_replica() -> None:
    assert replica_health({}).lag is None


class Asked:
    """A control connection that answers with the rows given, and remembers the questions."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.asked: list[str] = []

    async def query(self, sql: str) -> list[dict[str, Any]]:
        self.asked.append(sql)
        return self.rows


def looked(server: Server, rows: list[dict[str, Any]]) -> tuple[ServerHealth, list[str]]:
    asked: Any = Asked(rows)
    connection: ControlConnection = asked
    return asyncio.run(look(server, connection)), asked.asked


def test_a_primary_is_up_when_it_answers() -> None:
    assert looked(PRIMARY, [{"1": 1}]) == (ServerHealth(True), ["SELECT 1"])


def test_a_replica_without_replication_is_up_and_not_fit() -> None:
    assert looked(REPLICA, []) == (ServerHealth(True, None, "replication is not set up"), ["SHOW REPLICA STATUS"])
    assert looked(REPLICA, [row("mysql", behind=3)])[0] == ServerHealth(True, 3.0)


def test_domains_of_a_position() -> None:
    assert last_of_domains("0-1-100,1-2-7") == {0: 100, 1: 7}
    assert last_of_domains("") == {}
