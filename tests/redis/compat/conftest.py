"""What speaks Redis's protocol, in RESP2 and RESP3: one Redis, one Valkey, a proxy over three nodes of Redis. The same
assertions for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shardproxy.local import LocalCluster
from shardproxy.local.redis_node import RedisNode
from tests.redis.kinds import kinds_of_nodes
from tests.redis.proxied import RedisProxy, redis_proxy

Reply = Any  # bytes, int, None, or a list of these


class Client:
    """One connection; replies as they are on the wire, but without what differs between RESP2 and RESP3.

    A call takes words as one text, or bytes each; it gives the reply: a number or bytes, doubles as RESP2 writes them;
    of arrays, maps and sets all that is in them as one list, which has the same order in both.
    """

    def __init__(self, port: int, protocol: int) -> None:
        self._open: Callable[[], Client] = lambda: Client(port, protocol)
        never = Retry(NoBackoff(), 0)  # what was lost, or refused, shall be seen
        self.redis: Any = redis.Redis(port=port, protocol=protocol, single_connection_client=True, retry=never)
        self.redis.response_callbacks.clear()
        self.protocol = protocol
        self._others: list[Client] = []

    def __call__(self, text: str | bytes, *words: bytes | str | int) -> Reply:
        first = text.split() if isinstance(text, str) else [text]
        return plain(self.redis.execute_command(*first, *words))

    def error(self, text: str | bytes, *words: bytes | str | int) -> str:
        """The error's text, with its code except ERR."""
        with pytest.raises(redis.RedisError) as caught:
            self(text, *words)
        return f"{getattr(caught.value, 'status_code', None) or ''} {caught.value}".strip()

    def send(self, text: str) -> None:
        """Send a command without waiting for its reply."""
        self.redis.connection.send_command(*text.split())

    def receive(self) -> Reply:
        """The next reply."""
        return plain(self.redis.connection.read_response(timeout=10))

    def other(self) -> Client:
        """Another connection to the same target; closed with this one."""
        self._others.append(self._open())
        return self._others[-1]

    def close(self) -> None:
        """All connections."""
        for other in self._others:
            other.close()
        self.redis.close()


def plain(reply: Any) -> Reply:
    """See Client."""
    if isinstance(reply, (list, set, dict)):
        values = [part for pair in reply.items() for part in pair] if isinstance(reply, dict) else list(reply)
        return [leaf for value in values for leaf in _leaves(plain(value))]
    if isinstance(reply, bool):
        return int(reply)
    if isinstance(reply, float):
        return b"%.17g" % reply if reply != int(reply) else b"%d" % reply
    return reply.encode() if isinstance(reply, str) else reply


def _leaves(value: Reply) -> list[Any]:
    return value if isinstance(value, list) else [value]


@pytest.fixture(scope="package")
def redis_target() -> Iterator[RedisNode]:
    with kinds_of_nodes("redis", 1) as nodes:
        yield nodes[0]


@pytest.fixture(scope="package")
def valkey_target() -> Iterator[RedisNode]:
    with kinds_of_nodes("valkey", 1) as nodes:
        yield nodes[0]


@pytest.fixture(scope="package")
def proxy_target() -> Iterator[RedisProxy]:
    with (
        LocalCluster("mariadb", shards=1, replicas=0, redis=3) as cluster,
        redis_proxy(cluster) as proxy,
    ):
        yield proxy


@pytest.fixture(params=["redis-resp2", "redis-resp3", "valkey-resp2", "valkey-resp3", "proxy-resp2", "proxy-resp3"])
def r(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A connection to each target in turn, which is empty."""
    kind, _, protocol = request.param.partition("-resp")
    target: RedisNode | RedisProxy = request.getfixturevalue(f"{kind}_target")
    client = Client(target.port, int(protocol))
    client("FLUSHALL")
    client("FUNCTION FLUSH")
    yield client
    client.close()
