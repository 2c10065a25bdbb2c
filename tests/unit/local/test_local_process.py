"""Process: started, waited for, ended; what its errors say. The programs are shells and small Pythons, not servers."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from shardproxy.errors import LocalError
from shardproxy.local.ports import accepts, free_port
from shardproxy.local.process import MARK, Process, find_program, missing_program

LISTEN = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    listener.accept()
"""


def listener(log: Path, port: int) -> Process:
    return Process("listener", [sys.executable, "-c", LISTEN, str(port)], log=log, port=port)


def test_start_returns_when_the_port_accepts_and_stop_ends_it(tmp_path: Path) -> None:
    port = free_port()
    process = listener(tmp_path / "log", port)
    assert not process.running
    assert process.pid == 0
    process.start(timeout=20)
    try:
        assert process.running
        assert accepts(port)
    finally:
        process.stop()
    assert not process.running
    assert not accepts(port)
    process.stop()  # harmless
    process.kill()


def test_a_second_start_is_refused_and_a_restart_gets_a_new_pid(tmp_path: Path) -> None:
    process = listener(tmp_path / "log", free_port())
    process.start(timeout=20)
    try:
        first = process.pid
        with pytest.raises(LocalError, match=rf"already running as pid {first}"):
            process.start()
        process.kill()
        process.start(timeout=20)
        assert process.pid != first
    finally:
        process.kill()


def test_a_program_survives_the_thread_that_started_it(tmp_path: Path) -> None:
    # The kernel's parent-death signal is about threads: a program forked by a worker thread would die with that thread.
    process = listener(tmp_path / "log", port := free_port())
    starter = threading.Thread(target=process.start)
    starter.start()
    starter.join()
    try:
        assert process.running
        assert accepts(port)
    finally:
        process.kill()


def test_early_end_tells_status_and_last_words(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo first; echo the disk is on fire >&2; exit 3"]
    process = Process("burner", command, log=tmp_path / "log", ready=lambda: False)
    with pytest.raises(LocalError, match=r"(?s)burner: .*exit status 3.*the disk is on fire"):
        process.start()


def test_end_by_signal_is_named(tmp_path: Path) -> None:
    process = Process("victim", ["sh", "-c", "kill -9 $$"], log=tmp_path / "log", ready=lambda: False)
    with pytest.raises(LocalError, match="signal SIGKILL"):
        process.start()


def test_a_silent_program_is_ended(tmp_path: Path) -> None:
    process = Process("mute", ["sleep", "60"], log=tmp_path / "log", ready=lambda: False)
    with pytest.raises(LocalError, match=r"mute: .*did not answer within 0\.1 s"):
        process.start(timeout=0.1)
    assert not process.running


def test_an_error_while_waiting_ends_the_program(tmp_path: Path) -> None:
    def ready() -> bool:
        raise KeyboardInterrupt

    process = Process("interrupted", ["sleep", "60"], log=tmp_path / "log", ready=ready)
    with pytest.raises(KeyboardInterrupt):
        process.start()
    assert process.pid
    assert not process.running


def test_the_environment_carries_mark_and_additions(tmp_path: Path) -> None:
    process = Process(
        "printer",
        ["sh", "-c", f"echo mark=${MARK} own=$OWN; exit 1"],
        log=tmp_path / "log",
        ready=lambda: False,
        mark="sp1",
        environment={"OWN": "x"},
    )
    with pytest.raises(LocalError, match="mark=sp1 own=x"):
        process.start()


def test_log_tail_is_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = Process("any", ["true"], log=log, ready=lambda: True)
    assert process.log_tail() == "(no log)"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    assert process.log_tail(2) == "line 98\nline 99"


def test_missing_program_says_what_to_do() -> None:
    with pytest.raises(LocalError, match="no-such-program: program not found; apt-get install it"):
        find_program("no-such-program", "apt-get install it")
    assert missing_program("no-such-program", "do this") == "no-such-program: program not found; do this"
    assert missing_program("sh", "do this") is None


def test_a_process_without_a_way_to_be_ready_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="port or a ready condition"):
        Process("any", ["true"], log=tmp_path / "log")


def test_suspend_needs_a_running_program(tmp_path: Path) -> None:
    process = Process("any", ["true"], log=tmp_path / "log", ready=lambda: True)
    with pytest.raises(LocalError, match="does not run"):
        process.suspend()


def test_suspend_and_resume(tmp_path: Path) -> None:
    process = listener(tmp_path / "log", free_port())
    process.start(timeout=20)
    try:
        process.suspend()
        assert _state_becomes(process.pid, "T")
        process.resume()
        assert _state_becomes(process.pid, "SR")
    finally:
        process.kill()


def _state_becomes(pid: int, states: str) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return any(stat.read_text().rpartition(")")[2].split()[0] in states for _ in range(100_000))
