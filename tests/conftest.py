"""Real servers for the tests that ask for them. Nothing starts before the first such test; all ends with the session.

`flavor` is parametrised over MariaDB and MySQL 9; `cluster` and `oracle` follow it, so one test sees both of one kind.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from shardproxy.local import LocalCluster, LocalServer, unavailable
from shardproxy.local.flavors import FlavorName
from tests import parallel, shown
from tests.proxy import ProxyUnderTest, start_proxy

# On a machine that does other work too, one example or the making of data may take long: no reason to fail.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

_LEFT_OUT = "NOT TESTED on MySQL 9"


class LeftOutWarning(UserWarning):
    """Tests did not run because the machine lacks something they need."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--loops", type=int, default=0, help="torture of moves: so many long runs")


@pytest.fixture(scope="session", params=["mariadb", "mysql"])
def flavor(request: pytest.FixtureRequest) -> FlavorName:
    """Each kind of server in turn."""
    name: FlavorName = request.param
    return name


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out, loudly and before any server starts, what needs MySQL 9 where it cannot run.

    Only missing root rights excuse that; whatever else is missing is an error of the cluster's start.
    """
    shown.begin(item)
    if os.geteuid() == 0 or not isinstance(item, pytest.Function):
        return
    callspec = getattr(item, "callspec", None)
    parameter = callspec.params.get("flavor") if callspec is not None else None
    if parameter == "mysql" or not {"mysql_cluster", "mysql_oracle"}.isdisjoint(item.fixturenames):
        reason = unavailable("mysql")
        assert reason is not None
        warnings.warn(LeftOutWarning(f"{_LEFT_OUT}: {reason}"), stacklevel=1)
        pytest.skip(f"{_LEFT_OUT}: {reason}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in capitals what was not tested: a green run without it would be misread."""
    counts: dict[str, int] = {}  # by reason; from the reports, which come from other processes too
    for report in terminalreporter.stats.get("skipped", ()):
        _, _, reason = str(report.longrepr[2]).partition(f"{_LEFT_OUT}: ")
        if reason:
            counts[reason] = counts.get(reason, 0) + 1
    for reason, count in counts.items():
        terminalreporter.section("NOT TESTED ON MYSQL 9", sep="!", red=True, bold=True)
        terminalreporter.line(f"{count} tests did not run: {reason}", red=True, bold=True)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--loops", 0):  # each time other ones; the same in all processes of one run
        os.environ.setdefault("SHARDPROXY_SEED", secrets.token_hex(3))
    parallel.configure_process(config)
    if not parallel.is_one_of_several(config):
        config.pluginmanager.register(_Printing(config))


class _Printing:
    """Prints what tests show, in the process that reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self.config.pluginmanager.getplugin("terminalreporter")
        for text in shown.shown(report):
            terminal.write_line("")  # after the dots
            terminal.write_line(text)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    parallel.tell_alone(config, items)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    parallel.configure_node(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> parallel.Scheduling:
    return parallel.Scheduling(config, log)


def _cluster(flavor: FlavorName) -> Iterator[LocalCluster]:
    with LocalCluster(flavor, shards=2, replicas=1) as cluster:
        yield cluster


def _oracle(flavor: FlavorName) -> Iterator[LocalServer]:
    with LocalCluster.single(flavor) as cluster:
        yield cluster.server


@pytest.fixture(scope="session")
def mariadb_cluster() -> Iterator[LocalCluster]:
    """Two MariaDB shards of a primary and a replica."""
    yield from _cluster("mariadb")


@pytest.fixture(scope="session")
def mysql_cluster() -> Iterator[LocalCluster]:
    """Two MySQL 9 shards of a primary and a replica."""
    yield from _cluster("mysql")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, flavor: FlavorName) -> LocalCluster:
    """Two shards of a primary and a replica, of each flavour in turn. Shared: clean up databases and accounts."""
    found: LocalCluster = request.getfixturevalue(f"{flavor}_cluster")
    return found


@pytest.fixture(scope="session")
def mariadb_oracle() -> Iterator[LocalServer]:
    """One lone MariaDB: what a single server would answer."""
    yield from _oracle("mariadb")


@pytest.fixture(scope="session")
def mysql_oracle() -> Iterator[LocalServer]:
    """One lone MySQL 9: what a single server would answer."""
    yield from _oracle("mysql")


@pytest.fixture(scope="session")
def oracle(request: pytest.FixtureRequest, flavor: FlavorName) -> LocalServer:
    """One lone server of the same flavour as `cluster`."""
    found: LocalServer = request.getfixturevalue(f"{flavor}_oracle")
    return found


@pytest.fixture(scope="session")
def proxy_process(cluster: LocalCluster) -> Iterator[ProxyUnderTest]:
    """A proxy with two workers in front of `cluster`; see tests/proxy.py for its tables and users."""
    running = start_proxy(cluster, proxy={"drain_timeout": "100ms"})
    yield running
    running.process.stop()


@pytest.fixture
def proxy(proxy_process: ProxyUnderTest) -> ProxyUnderTest:
    """The same proxy with empty tables."""
    proxy_process.empty()
    return proxy_process
