"""One program that runs beside us: started, waited for until it answers, ended by its pid.

Two nets keep it from outliving its owner: the kernel kills it when the owner dies (PR_SET_PDEATHSIG, set by
util-linux's `setpriv`), and its environment carries a mark by which `records.clean_stale` finds it later.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shardproxy.errors import LocalError
from shardproxy.local.ports import accepts

MARK = "SHARDPROXY_LOCAL"  # environment variable that names the cluster a server belongs to
_STOP_PATIENCE = 10.0  # seconds until all threads have taken SIGSTOP
_POLL = 0.01  # seconds between two looks at a starting or ending program


def find_program(name: str, hint: str) -> str:
    """Path of the program `name`; raises LocalError with `hint` (what to do) when it is not installed."""
    found = _which(name)
    if found is None:
        raise LocalError(f"{name}: program not found; {hint}")
    return found


def missing_program(name: str, hint: str) -> str | None:
    """The message of `find_program` when the program is not installed, else None."""
    return None if _which(name) else f"{name}: program not found; {hint}"


def _which(name: str) -> str | None:
    # Debian keeps servers in /usr/sbin, which is not on the PATH of ordinary users.
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin")


@functools.lru_cache(maxsize=1)
def _spawner(_pid: int) -> ThreadPoolExecutor:
    """The thread that starts every program of process `_pid`.

    The kernel sends the parent-death signal when the *thread* that forked ends, so programs must not be forked by
    short-lived threads. This one lives as long as the interpreter.
    """
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="shardproxy-spawner")


class Process:
    """A program with a log file. `start` returns when it is ready, or raises LocalError with the end of its log.

    name     for messages
    command  argv; the program is looked up when the Process is started
    log      file that gets stdout and stderr (appended)
    ready    tells whether the program answers; default: `port` accepts TCP connections
    mark     value of the environment variable SHARDPROXY_LOCAL (the cluster's id)
    hint     what to do when the program is missing
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        port: int | None = None,
        ready: Callable[[], bool] | None = None,
        mark: str = "",
        environment: Mapping[str, str] | None = None,
        hint: str = "install it",
    ) -> None:
        if port is None and ready is None:
            raise ValueError("a Process needs a port or a ready condition")
        self.name = name
        self.command = list(command)
        self.log = log
        self.port = port
        self._ready = ready or self._port_accepts
        self._environment = {**os.environ, **(environment or {}), **({MARK: mark} if mark else {})}
        self._hint = hint
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The program's pid; 0 before the first start. Stays after its end."""
        return self._popen.pid if self._popen else 0

    @property
    def running(self) -> bool:
        """Whether the program has been started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def start(self, timeout: float = 60.0) -> None:
        """Start the program and wait up to `timeout` seconds until it is ready.

        Raises LocalError when it ends early or stays silent; it does not run any more then.
        """
        if self.running:
            raise LocalError(f"{self.name}: already running as pid {self.pid}")
        program = find_program(self.command[0], self._hint)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        argv = [*die_with_parent(), program, *self.command[1:]]
        self._popen = _spawner(os.getpid()).submit(self._spawn, argv).result()
        try:
            self._wait_ready(timeout)
        except BaseException:
            self.kill()
            raise

    def stop(self, grace: float = 20.0) -> None:
        """Ask the program to end (SIGTERM), wait `grace` seconds, then kill it. Nothing happens if it does not run."""
        if self._popen is None or self._popen.poll() is not None:
            return
        self._popen.terminate()
        try:
            self._popen.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, and wait until the program is gone. Nothing happens if it does not run."""
        if self._popen is None or self._popen.poll() is not None:
            return
        self._popen.kill()
        self._popen.wait()

    def suspend(self) -> None:
        """SIGSTOP: the program keeps its connections and does nothing. Returns when all its threads have stopped."""
        pid = self._alive()
        os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + _STOP_PATIENCE
        while not _stopped(pid):
            if time.monotonic() > deadline:
                raise LocalError(f"{self.name}: does not stop")
            time.sleep(0.001)  # between two looks: /proc tells nobody

    def resume(self) -> None:
        """SIGCONT after `suspend`."""
        os.kill(self._alive(), signal.SIGCONT)

    def log_tail(self, lines: int = 12) -> str:
        """The last `lines` lines of the log."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:]) or "(empty log)"

    def _alive(self) -> int:
        if not self.running:
            raise LocalError(f"{self.name}: does not run")
        return self.pid

    def _spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # Ctrl-C at the terminal goes to the owner alone, who ends us in order
            )

    def _port_accepts(self) -> bool:
        assert self.port is not None
        return accepts(self.port)

    def _wait_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._ready():
            if not self.running:
                assert self._popen is not None
                raise LocalError(self._failure(f"ended with {_status(self._popen.returncode)} before it was ready"))
            if time.monotonic() > deadline:
                raise LocalError(self._failure(f"did not answer within {timeout:g} s"))
            time.sleep(_POLL)
        if not self.running:  # something else answers on our port
            assert self._popen is not None
            raise LocalError(self._failure(f"ended with {_status(self._popen.returncode)}"))

    def _failure(self, what: str) -> str:
        return f"{self.name}: {' '.join(self.command[:2])} … {what}; last lines of {self.log}:\n{self.log_tail()}"


def die_with_parent() -> list[str]:
    """Words before a command so that the kernel kills it when the thread that starts it ends; none without setpriv."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _status(returncode: int) -> str:
    if returncode < 0:
        return f"signal {signal.Signals(-returncode).name}"
    return f"exit status {returncode}"


def _stopped(pid: int) -> bool:
    """Whether every thread of the process is stopped: each takes the signal by itself, and may answer until then."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            state = stat.read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that has ended
        if state not in "TZX":
            return False
    return True
