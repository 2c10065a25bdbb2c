"""How the tests of a whole run are handed to several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests import parallel

CONFTEST = """
import os
import pytest
from tests.conftest import (
    pytest_collection_modifyitems, pytest_configure, pytest_configure_node, pytest_runtest_setup,
    pytest_xdist_make_scheduler,
)

def pytest_runtest_logreport(report):
    if report.when == "call" and "PYTEST_XDIST_WORKER" not in os.environ:
        with open("ran", "a") as file:
            print(report.nodeid, report.worker_id, file=file)

@pytest.fixture(autouse=True)
def ports(worker_id):
    assert int(os.environ["SHARDPROXY_PORTS"].split("-")[0]) >= 20000 + 4000 * int(worker_id[2:])
"""
FILE = """
import pytest
from tests.shown import show

@pytest.mark.parametrize("flavor", ["mariadb", "mysql"])
@pytest.mark.parametrize("number", range(3))
def test_of_servers(number, flavor):
    pass

@pytest.mark.alone
def test_alone():
    pass

@pytest.fixture(scope="module")
def counts():
    yield
    show("counts of {number}", "in two lines")

def test_other(counts):
    show("test {number}")
    assert {number} != 2
"""


def test_each_test_runs_once_and_those_marked_alone_run_last_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone\n")
    for number in range(4):
        (tmp_path / f"test_{number}.py").write_text(FILE.format(number=number))
    environment = {**os.environ, "PYTHONPATH": str(Path(parallel.__file__).parents[1])}
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "SHARDPROXY_PORTS"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "pytest", "-n", "3", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 31 passed" in done.stdout
    for number in range(4):
        assert done.stdout.count(f"\ntest {number}\n") == 1
        assert done.stdout.count(f"\ncounts of {number}\nin two lines\n") == 1
    ran = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
    assert len({test for test, _ in ran}) == len(ran) == 32
    assert [test for test, _ in ran if test.endswith("test_alone")] == [test for test, _ in ran[-4:]]
    assert len({process for _, process in ran[-4:]}) == 1
    units: dict[str, set[str]] = {}
    for test, process in ran:
        units.setdefault(parallel.unit_of(test) if "alone" not in test else "alone", set()).add(process)
    assert all(len(processes) == 1 for processes in units.values()), "the tests of a unit share a process"
    assert len(set().union(*units.values())) > 1


def test_units_are_files_and_kinds_of_servers() -> None:
    assert parallel.unit_of("tests/a/test_b.py::test_c[mysql-mariadb]") == "tests/a/test_b.py::mysql"
    assert parallel.unit_of("tests/a/test_b.py::test_c[target-hides-mariadb]") == "tests/a/test_b.py::mariadb"
    assert parallel.unit_of("tests/a/test_b.py::test_c[mysqlx]") == "tests/a/test_b.py"
    assert parallel.unit_of("tests/a/test_b.py::test_mysql") == "tests/a/test_b.py"


def test_long_units_come_first_and_a_process_keeps_its_kind_of_servers() -> None:
    torture = ["tests/torture/test_a.py::mariadb", "tests/torture/test_a.py::mysql"]
    waiting = ["tests/unit/test_u.py", "tests/integration/test_i.py::mysql", *torture, parallel.ALONE]
    assert parallel.next_unit(waiting, []) == torture[0]
    assert parallel.next_unit(waiting, ["tests/x.py::mysql", "tests/y.py"]) == torture[1]
    assert parallel.next_unit(waiting[:2], ["tests/x.py::mariadb"]) == "tests/integration/test_i.py::mysql"
    assert parallel.next_unit([waiting[-1], waiting[0]], []) == waiting[0]


@given(st.integers(1, 64))
def test_processes_share_no_port(processes: int) -> None:
    taken: set[int] = set()
    for number in range(processes):
        first, last = map(int, parallel.ports_of(f"gw{number}", processes).split("-"))
        ports = set(range(first, last + 1))
        assert len(ports) >= 180
        assert first >= 20_000
        assert last <= 32_000
        assert not ports & taken
        taken |= ports
