"""Clients that write through several proxies while keys move, and the audit of what they were told."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.proxy import eventually


def connect(port: int, timeout: float = 30.0) -> Any:
    """A client that sends nothing twice."""
    return redis.Redis(
        port=port, retry=Retry(NoBackoff(), 0), single_connection_client=True, socket_timeout=timeout,
        socket_connect_timeout=timeout,
    )  # fmt: skip


class Load:
    """`clients` threads, each through any of the proxies, on `names` keys of each kind. A command that got an error may
    have run, or not; one that got a reply has run exactly once."""

    def __init__(self, ports: Sequence[int], clients: int = 6, names: int = 150, seed: int = 1) -> None:
        self.wrong: list[str] = []  # replies that no server could give
        self.errors: Counter[str] = Counter()
        self.done = 0
        self._ports = ports
        self._names = names
        self._lock = threading.Lock()
        self._sure: dict[tuple[str, str], list[Any]] = {}  # (kind, key) → what was certainly added
        self._unsure: dict[tuple[str, str], list[Any]] = {}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n, seed)) for n in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def goes_on(self, more: int = 300) -> None:
        """Wait until so many more commands have been done."""
        goal = self.done + more
        eventually(lambda: self.done >= goal, f"clients go on: {self.errors}", 60)

    def _work(self, number: int, seed: int) -> None:
        dice = random.Random(seed * 1000 + number)
        client: Any = None
        count = 0
        while not self._stop.is_set():
            count += 1
            try:
                if client is None:
                    client = connect(self._ports[dice.randrange(len(self._ports))])
                self._one(client, dice, f"{number}.{count}", number)
                self.done += 1
            except redis.RedisError as error:
                with self._lock:
                    self.errors[str(error)[:60]] += 1
                if client is not None and not isinstance(error, redis.ResponseError):
                    client.close()
                    client = None
                self._stop.wait(0.01)  # a node that is being killed is not asked as fast as it can refuse
            if dice.random() < 0.01 and client is not None:
                client.close()
                client = None

    def _one(self, client: Any, dice: random.Random, mark: str, number: int) -> None:
        kind = dice.choice(("count", "count", "list", "set", "stream", "own", "many"))
        key = f"{kind}:{dice.randrange(self._names)}"
        match kind:
            case "count":
                self._add(kind, key, mark, lambda: client.incr(key))
            case "list":
                self._add(kind, key, mark, lambda: client.rpush(key, mark))
            case "set":
                self._add(kind, key, mark, lambda: client.sadd(key, mark))
            case "stream":
                self._add(kind, key, mark, lambda: client.xadd(key, {"mark": mark}))
            case "own":
                self._own(client, f"own:{number}:{dice.randrange(20)}", mark)
            case "many":
                keys = [f"count:{dice.randrange(self._names)}" for _ in range(5)]
                values = client.mget(keys)
                self._check(len(values) == 5, f"MGET {keys} gives {values}")

    def _add(self, kind: str, key: str, mark: str, add: Any) -> None:
        try:
            reply = add()
        except redis.RedisError as error:
            if "not sent" not in str(error):
                with self._lock:
                    self._unsure.setdefault((kind, key), []).append(mark)
            raise
        with self._lock:
            self._sure.setdefault((kind, key), []).append(int(reply) if kind == "count" else mark)

    def _own(self, client: Any, key: str, mark: str) -> None:
        """Nobody else writes this key: what is read is what was written, and what was deleted does not come back. A key
        of which a write got an error has another name next time."""
        client.set(key, mark, ex=1000)
        self._check(client.get(key) == mark.encode(), f"{key} is not {mark}")
        left = client.ttl(key)
        self._check(980 < left <= 1000, f"{key} expires in {left} s")
        self._check(client.delete(key) == 1, f"{key} was not there")
        for _ in range(2):
            self._check(client.get(key) is None, f"{key} is there again")

    def _check(self, right: bool, what: str) -> None:
        if not right:
            with self._lock:
                self.wrong.append(what)

    def audit(self, client: Any) -> list[str]:
        """Everything that is not as it must be, read when nobody writes any more."""
        found = list(self.wrong)
        for (kind, key), sure in self._sure.items():
            unsure = self._unsure.get((kind, key), [])
            if kind == "count":
                value = int(client.get(key) or 0)
                if not len(sure) <= value <= len(sure) + len(unsure) or len(set(sure)) != len(sure):
                    found.append(f"{key} is {value} after {len(sure)} and perhaps {len(unsure)} more increments")
                continue
            match kind:
                case "list":
                    there = Counter(each.decode() for each in client.lrange(key, 0, -1))
                case "set":
                    there = Counter(each.decode() for each in client.smembers(key))
                case _:
                    there = Counter(fields[b"mark"].decode() for _, fields in client.xrange(key))
            found += [f"{key}: {mark} is lost" for mark in sure if not there[mark]]
            found += [f"{key}: {mark} is there {n} times" for mark, n in there.items() if n > 1]
            found += [f"{key}: {mark} was never added" for mark in there.keys() - {*sure, *unsure}]
        return found
