"""`./dev demo` as people run it: the tour, staying up, and above all that nothing is left behind."""

from __future__ import annotations

import http.client
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql

from shardproxy.local.folders import records_folder
from shardproxy.local.records import processes_of

LIMIT = 300.0  # seconds for anything here; a loaded machine is slow


class RunningDemo:
    """The demo as a subprocess; `output`: its stdout so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.output = ""

    def read_until(self, text: str) -> None:
        """Read stdout until it holds `text`. Fails when it ends first, or after LIMIT."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + LIMIT
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while text not in self.output:
                assert selector.select(deadline - time.monotonic()), f"no {text!r} within {LIMIT:g} s: {self.output}"
                data = os.read(self.process.stdout.fileno(), 65536)
                assert data, f"the demo ended with {self.process.wait()} before {text!r}: {self.output}"
                self.output += data.decode()

    def end(self) -> tuple[int, str]:
        """Wait for the end; exit status and stderr."""
        out, err = self.process.communicate(timeout=LIMIT)
        self.output += out.decode()
        return self.process.returncode, err.decode()

    def cluster_id(self) -> str:
        """Id of its cluster, from the record that names the demo as the owner."""
        return wait_for(self._recorded, "a record of the demo's cluster")

    def _recorded(self) -> str | None:
        for path in records_folder().glob("*.json"):
            try:
                record = json.loads(path.read_text())
            except FileNotFoundError:  # another cluster's, just gone
                continue
            if record["pid"] == self.process.pid:
                return str(record["id"])
        return None


@contextmanager
def demo(*arguments: str) -> Iterator[RunningDemo]:
    process = subprocess.Popen(
        [sys.executable, "-m", "shardproxy.local.demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "dumb"},
    )
    try:
        yield RunningDemo(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_for(condition: Callable[[], str | None], what: str) -> str:
    deadline = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {LIMIT:g} s: {what}"
        time.sleep(0.01)
    return found


def assert_nothing_left(cluster_id: str) -> None:
    assert processes_of(cluster_id) == []
    assert not list(records_folder().glob(f"*{cluster_id}*"))


def get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode()
    finally:
        connection.close()


def test_once_walks_through_the_tour_and_leaves_nothing() -> None:
    with demo("--once") as running:
        cluster_id = running.cluster_id()
        status, errors = running.end()
    assert (status, errors) == (0, "")
    headings = re.findall(r"^(\d+)\. ", running.output, re.MULTILINE)
    assert headings == [str(number) for number in range(1, len(headings) + 1)] and len(headings) == 11
    assert "300,046 rows" in running.output
    assert "→ shard2 (primary): one shard: users.uid = ?" in running.output  # the insert
    assert "→ shard1, shard2 (replica)" in running.output  # the scatter read
    assert "ERROR 9101: what only one server connection knows (GET_LOCK) over several shards" in running.output
    assert "\x1b" not in running.output  # no terminal, no colours
    assert_nothing_left(cluster_id)


def test_it_stays_up_until_ctrl_c() -> None:
    with demo() as running:
        cluster_id = running.cluster_id()
        running.read_until("Ctrl-C ends all of it")
        connect = re.search(r"-P (\d+) -u (\S+) -p(\S+) --comments (\S+)", running.output)
        metrics = re.search(r"curl -s http://127\.0\.0\.1:(\d+)/metrics", running.output)
        assert connect is not None and metrics is not None
        port, user, password, database = connect.groups()
        login = {"user": user, "password": password, "database": database}
        with (
            pymysql.connect(host="127.0.0.1", port=int(port), autocommit=True, **login) as client,
            client.cursor() as cursor,
        ):
            cursor.execute("SELECT name FROM users WHERE uid IN (1, 100000)")
            assert len(cursor.fetchall()) == 2
        assert 'shardproxy_queries_total{kind="INSERT",opcode="EqualUnique"' in get(int(metrics.group(1)), "/metrics")
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGINT)
        status, errors = running.end()
    assert (status, errors) == (0, "")
    assert_nothing_left(cluster_id)


def test_ctrl_c_while_it_loads() -> None:
    with demo() as running:
        running.read_until("load users")
        cluster_id = running.cluster_id()
        running.process.send_signal(signal.SIGINT)
        status, errors = running.end()
    assert (status, errors) == (128 + signal.SIGINT, "")
    assert "start the proxy" not in running.output
    assert_nothing_left(cluster_id)


def test_a_failure_is_told_and_leaves_nothing() -> None:
    with demo() as running:
        running.read_until("load users")
        cluster_id = running.cluster_id()
        for pid in processes_of(cluster_id):
            if b"shard2-primary" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        status, errors = running.end()
    assert status == 1
    assert errors.startswith("demo failed: shard2-primary cannot be filled with sample data: "), errors
    assert_nothing_left(cluster_id)
