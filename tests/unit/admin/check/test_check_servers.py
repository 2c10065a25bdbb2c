"""Rules about servers and replicas: healthy facts give nothing, each broken one its finding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from shardproxy.admin.check.ask import replication_from_row
from shardproxy.admin.check.facts import Replication, ServerFacts
from shardproxy.admin.check.findings import Finding, Severity, error, in_order, warning
from shardproxy.admin.check.replication import replication_findings
from shardproxy.admin.check.servers import server_findings
from tests.unit.admin.check.check_facts import changed, config, healthy, snapshot

Facts = dict[str, ServerFacts]
E, W = Severity.ERROR, Severity.WARNING


def found(facts: Facts) -> list[Finding]:
    values = list(facts.values())
    return [
        *server_findings(config(), snapshot(), values),
        *replication_findings(config(), snapshot(), values),
    ]


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
def test_a_healthy_topology_has_no_findings(flavor: str) -> None:
    assert found(healthy(flavor)) == []


def everywhere(facts: Facts, **variables: str) -> Facts:
    return {name: changed(f, **variables) for name, f in facts.items()}


def one(name: str, **variables: str) -> Callable[[Facts], Facts]:
    return lambda facts: {**facts, name: changed(facts[name], **variables)}


def replicating(name: str, **state: object) -> Callable[[Facts], Facts]:
    def change(facts: Facts) -> Facts:
        before = facts[name].replication
        assert before is not None
        return {**facts, name: replace(facts[name], replication=replace(before, **state))}  # type: ignore[arg-type]

    return change


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
@pytest.mark.parametrize(
    ("change", "severity", "where", "what"),
    [
        (
            lambda f: {**f, "a/primary": replace(f["a/primary"], error="refused")},
            E,
            "a/primary",
            "cannot be asked: refused",
        ),
        (one("b/primary", sql_mode="STRICT_TRANS_TABLES,ANSI_QUOTES"), E, "all servers", "sql_mode differs"),
        (one("b/replica1", time_zone="+01:00"), E, "all servers", "time_zone differs: SYSTEM (UTC) on a/primary"),
        (one("b/primary", system_time_zone="CET"), E, "all servers", "SYSTEM (CET) on b/primary"),
        (one("b/primary", autocommit="OFF"), E, "all servers", "autocommit differs"),
        (one("b/replica1", sql_select_limit="9"), E, "all servers", "sql_select_limit differs: unset on a/primary"),
        (one("a/primary", completion_type="CHAIN"), W, "a/primary", "completion_type is CHAIN"),
        (one("b/replica1", init_connect="SET NAMES utf8mb4"), W, "b/replica1", "init_connect is set"),
        (one("b/primary", lower_case_table_names="1"), E, "all servers", "lower_case_table_names differs"),
        (one("b/primary", collation_server="latin1_bin"), W, "all servers", "collation_server differs"),
        (
            lambda f: {**f, "a/primary": replace(f["a/primary"], version="11.4.2" + f["a/primary"].version)},
            W,
            "all servers",
            "version differs: 11.4 on a/primary",
        ),
        (lambda f: everywhere(f, sql_mode=""), E, "a/primary", "sql_mode is not strict"),
        (lambda f: everywhere(f, lower_case_table_names="1"), W, "a/primary", "lower_case_table_names = 1"),
        (one("a/primary", read_only="ON"), E, "a/primary", "it is the primary but read_only is on"),
        (one("a/primary", log_bin="OFF"), W, "a/primary", "log_bin is off"),
        (one("a/primary", binlog_format="MIXED"), W, "a/primary", "binlog_format is MIXED"),
        (one("a/primary", binlog_row_image="MINIMAL"), W, "a/primary", "binlog_row_image is MINIMAL"),
        (one("a/primary", binlog_row_metadata="NO_LOG"), W, "a/primary", "binlog_row_metadata is NO_LOG"),
        (one("a/primary", innodb_flush_log_at_trx_commit="0"), W, "a/primary", "a crash loses transactions"),
        (one("a/primary", max_connections="50"), W, "a/primary", "max_connections is 50, but 2 workers may open 68"),
        (one("a/primary", max_allowed_packet="1024"), W, "a/primary", "max_allowed_packet is 1024 bytes"),
        (one("a/replica1", read_only="OFF"), W, "a/replica1", "read_only is off"),
        (
            lambda f: {**f, "a/replica1": replace(f["a/replica1"], replication=None)},
            E,
            "a/replica1",
            "it does not replicate from anywhere",
        ),
        (
            replicating("b/replica1", source_id="1", source_uuid="uuid-1"),
            E,
            "b/replica1",
            "it replicates from another server (server_id 1) than b/primary (server_id 3)",
        ),
        (replicating("a/replica1", receiving=False), E, "a/replica1", "replication is not receiving"),
        (
            replicating("a/replica1", applying=False, last_error="Duplicate entry"),
            E,
            "a/replica1",
            "replication is not applying: Duplicate entry",
        ),
        (replicating("a/replica1", lag=17.0), W, "a/replica1", "it is 17 s behind"),
        (replicating("a/replica1", by_gtid=False), W, "a/replica1", "not by GTID"),
        (
            lambda f: {**f, "a/replica1": replace(f["a/replica1"], refused=(("its replication status", "1227"),))},
            E,
            "a/replica1",
            "its replication status cannot be read: 1227",
        ),
        (
            lambda f: {**f, "b/primary": replace(f["b/primary"], lock_waits="Access denied")},
            W,
            "b/primary",
            "its lock waits cannot be read (Access denied)",
        ),
        (
            lambda f: {**f, "b/primary": replace(f["b/primary"], variables=f["a/primary"].variables)},
            E,
            "b/primary",
            "it is the same server as a/primary",
        ),
    ],
)
def test_each_thing_that_is_wrong_is_found(
    flavor: str, change: Callable[[Facts], Facts], severity: Severity, where: str, what: str
) -> None:
    findings = found(change(healthy(flavor)))
    assert any(f.severity is severity and f.where == where and what in f.what and f.fix for f in findings), findings


@pytest.mark.parametrize(
    ("flavor", "variable", "value"),
    [
        ("mysql", "gtid_mode", "OFF"),
        ("mysql", "enforce_gtid_consistency", "WARN"),
        ("mysql", "binlog_transaction_compression", "ON"),
        ("mariadb", "log_bin_compress", "ON"),
    ],
)
def test_binlog_settings_that_only_one_flavor_has(flavor: str, variable: str, value: str) -> None:
    [finding] = found(one("a/primary", **{variable: value})(healthy(flavor)))
    assert (finding.severity, finding.where) == (W, "a/primary")
    assert f"{variable} is {value}" in finding.what


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
def test_recovery_on_mariadb_must_see_transactions(flavor: str) -> None:
    facts = healthy(flavor)
    facts["b/primary"] = replace(facts["b/primary"], lock_waits="Access denied")
    errors = [(f.where, f.fix) for f in found(facts) if f.severity is E and "not ended" in f.what]
    wanted = [("b/primary", "GRANT PROCESS ON *.* to the proxy's account")]
    assert errors == (wanted if flavor == "mariadb" else [])


def test_flavors_are_not_mixed() -> None:
    facts = {**healthy("mysql"), "b/replica1": replace(healthy("mysql")["b/replica1"], version="10.11.19-MariaDB")}
    assert any(f.severity is E and "MySQL and MariaDB are mixed" in f.what for f in found(facts))


def test_a_server_that_does_not_answer_is_not_judged_further() -> None:
    facts = healthy()
    dead = {name: ServerFacts(f.server, error="gone") for name, f in facts.items()}
    assert [(f.severity, f.what) for f in found(dead)] == [(E, "cannot be asked: gone")] * 4


MARIADB_ROW = {
    "master_server_id": 3,
    "slave_io_running": "Yes",
    "slave_sql_running": "No",
    "slave_sql_running_state": "",
    "seconds_behind_master": None,
    "using_gtid": "Slave_Pos",
    "replicate_ignore_server_ids": "",
    "last_io_error": "",
    "last_sql_error": "boom",
    "last_errno": 1,
}
MYSQL_ROW = {
    "source_server_id": 3,
    "source_uuid": "u-3",
    "replica_io_running": "Connecting",
    "replica_sql_running": "Yes",
    "replica_sql_running_state": "",
    "seconds_behind_source": 4,
    "auto_position": 1,
    "replicate_ignore_server_ids": "",
    "last_io_error": "",
    "last_sql_error": "",
}


def test_the_replication_status_of_both_flavors_is_read_in_the_same_words() -> None:
    assert replication_from_row(MARIADB_ROW) == Replication("3", "", True, False, None, True, "boom")
    assert replication_from_row(MYSQL_ROW) == Replication("3", "u-3", False, True, 4.0, True, "")
    assert not replication_from_row({**MARIADB_ROW, "using_gtid": "No"}).by_gtid
    assert not replication_from_row({**MYSQL_ROW, "auto_position": 0}).by_gtid


def test_errors_come_first_and_only_once() -> None:
    a, b = warning("x", "w", "f"), error("y", "e", "f")
    assert in_order([a, b, a]) == [b, a]
