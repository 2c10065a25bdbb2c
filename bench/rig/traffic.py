"""An application's traffic: so many single-row updates and reads a second through some proxies, all rows alike.

A companion process of threads, each with a connection of its own and a clock: what comes late is sent at once, so the
rate holds. Orders: `mark` begins a part of the time, `end` answers with the figures of all parts. A statement counts
for the part in which it was sent, and so for the second.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import threading
import time
from typing import Any

from bench.rig.companion import Companion, orders, reply
from bench.rig.move_data import TABLE
from bench.rig.proxy import PASSWORD, USER
from bench.rig.stolen import Seconds
from bench.rig.wire import WireClient

_WRITERS, _READERS = 24, 16
_SOONEST = 0.3  # seconds between the start of the threads and their first statements: all are logged in then


class Traffic:
    """`writes` and `reads` a second in all, until `end`."""

    def __init__(self, ports: list[int], keyspace: str, rows: int, writes: float, reads: float) -> None:
        self._ports, self._keyspace, self._rows = ports, keyspace, rows
        self._names = [""]
        self._part = 0
        self._over = False
        self._seconds = Seconds()
        self._kept: list[list[tuple[int, int, float]]] = []  # of each thread: part, second, ms
        self._errors: list[str] = []
        self._acknowledged = [0] * _WRITERS
        begin = time.monotonic() + _SOONEST
        kinds = [(self._write, _WRITERS, writes), (self._read, _READERS, reads)]
        self._threads: list[threading.Thread] = []
        for work, threads, rate in kinds:
            for number in range(threads):
                self._kept.append([])
                arguments = (work, number, self._kept[-1], begin + number / rate, threads / rate)
                self._threads.append(threading.Thread(target=self._run, args=arguments, daemon=True))
        self._threads.append(threading.Thread(target=self._seconds.run, args=(lambda: self._over,), daemon=True))
        for thread in self._threads:
            thread.start()

    def mark(self, name: str) -> dict[str, Any]:
        self._names.append(name)
        self._part = len(self._names) - 1
        return {}

    def end(self) -> dict[str, Any]:
        """Milliseconds, sorted, of each part: [name, writes, reads, writes and reads of seconds without stolen CPU];
        acknowledged: updates that were answered OK."""
        self._over = True
        for thread in self._threads:
            thread.join(60)
        groups = self._kept[:_WRITERS], self._kept[_WRITERS:]
        parts = [
            [name, *(self._of(index, group, calm) for calm in (False, True) for group in groups)]
            for index, name in enumerate(self._names)
        ]
        return {"parts": parts, "errors": self._errors, "acknowledged": sum(self._acknowledged)}

    def _of(self, index: int, group: list[list[tuple[int, int, float]]], calm: bool) -> list[float]:
        without = self._seconds.stolen if calm else ()
        return sorted(
            round(ms, 4) for kept in group for part, second, ms in kept if part == index and second not in without
        )

    def _run(self, work: Any, number: int, kept: list[tuple[int, int, float]], due: float, every: float) -> None:
        dice = random.Random(number)
        port = self._ports[number % len(self._ports)]
        client = WireClient(port, USER, PASSWORD, self._keyspace)
        while not self._over:
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)  # a fixed rate: the next statement is due then
            due += every
            part, second, start = self._part, self._seconds.now, time.perf_counter()
            try:
                work(client, number, dice.randrange(self._rows))
            except Exception as error:
                self._errors.append(f"{type(error).__name__} {getattr(error, 'code', '')}: {error}")
                client.close()
                client = WireClient(port, USER, PASSWORD, self._keyspace)
            kept.append((part, second, (time.perf_counter() - start) * 1e3))
        client.close()

    def _write(self, client: WireClient, number: int, ident: int) -> None:
        changed = client.run(f"UPDATE {TABLE} SET writes = writes + 1 WHERE id = {ident}")
        if changed != 1:
            raise ValueError(f"the update of row {ident} changed {changed} rows")
        self._acknowledged[number] += 1

    def _read(self, client: WireClient, number: int, ident: int) -> None:
        found = client.count(f"SELECT amount, note FROM {TABLE} WHERE id = {ident}", chunk=4096).rows
        if found != 1:
            raise ValueError(f"row {ident} was found {found} times")


def start(ports: list[int], keyspace: str, rows: int, writes: float, reads: float) -> Companion:
    """Traffic in a process of its own, which flows when this returns."""
    argument = {"ports": ports, "keyspace": keyspace, "rows": rows, "writes": writes, "reads": reads}
    companion = Companion("bench.rig.traffic", argument)
    companion.ask("mark", name="begin")
    return companion


def main() -> None:
    gc.disable()  # a collection of what is kept would stop all clients for 50 ms, and look like the proxy's fault
    traffic = Traffic(**json.loads(sys.argv[1]))
    for order in orders():
        if order["order"] == "mark":
            reply(lambda: traffic.mark(order["name"]))  # noqa: B023  called at once
        else:
            reply(traffic.end)


if __name__ == "__main__":
    main()
