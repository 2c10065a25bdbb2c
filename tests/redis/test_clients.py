"""CLIENT LIST, INFO and KILL through the proxy: about its own clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from shardproxy.local import LocalCluster
from tests.proxy import eventually
from tests.redis.proxied import RedisProxy, reads, redis_proxy


@pytest.fixture(scope="module")
def proxy() -> Iterator[RedisProxy]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=2) as cluster, redis_proxy(cluster) as running:
        yield running


@pytest.fixture
def client(proxy: RedisProxy) -> Iterator[Any]:
    with proxy.connect() as connected:
        yield connected


def listed(client: Any, name: str) -> dict[str, str]:
    return next((each for each in client.client_list() if each["name"] == name), {})


@pytest.mark.parametrize(
    ("commands", "shown"),
    [
        ("", {"flags": "N", "multi": "-1", "sub": "0", "resp": "2", "user": "default", "db": "0", "cmd": "NULL"}),
        ("MULTI|SET a 1|GET a", {"flags": "x", "multi": "2", "cmd": "NULL"}),
        ("BLPOP l 0", {"flags": "b", "cmd": "blpop"}),
        ("SUBSCRIBE a b|PSUBSCRIBE x*|SSUBSCRIBE c", {"flags": "P", "sub": "2", "psub": "1", "ssub": "1"}),
        ("SUBSCRIBE a|SSUBSCRIBE c", {"flags": "P", "cmd": "ssubscribe"}),
        ("MONITOR", {"flags": "O", "cmd": "monitor"}),
        ("HELLO 3|CLIENT SETINFO LIB-NAME mine", {"resp": "3", "lib-name": "mine"}),
    ],
)
def test_what_is_shown(proxy: RedisProxy, client: Any, commands: str, shown: dict[str, str]) -> None:
    with proxy.raw() as sock:
        lines = ["CLIENT SETNAME it", *filter(None, commands.split("|"))]
        sock.sendall("".join(f"{line}\r\n" for line in lines).encode())
        eventually(lambda: shown.items() <= listed(client, "it").items(), f"the list shows {shown}")
        address = "{}:{}".format(*sock.getsockname())
        found = listed(client, "it")
        assert found["addr"] == address and found["laddr"] == f"127.0.0.1:{proxy.port}"
        kind = "pubsub" if shown.get("flags") == "P" else "normal"
        assert [each["name"] for each in client.client_list(_type=kind) if each["name"]] == ["it"]
        assert [each["name"] for each in client.client_list(client_id=[found["id"]])] == ["it"]
        assert client.client_kill_filter(_id=found["id"]) == 1
        while sock.recv(1 << 16):
            pass
    eventually(lambda: not listed(client, "it"), "it is gone")
    eventually(lambda: proxy.metric("shardproxy_redis_own_connections") == 0, "and so are its connections")


def test_kill(proxy: RedisProxy, client: Any) -> None:
    with proxy.raw() as one, proxy.raw() as two:
        one.sendall(b"PING\r\n")
        two.sendall(b"PING\r\n")
        assert reads(one, 7) == reads(two, 7) == b"+PONG\r\n"
        assert client.client_kill("{}:{}".format(*one.getsockname())) is True
        assert one.recv(1) == b""
        with pytest.raises(redis.ResponseError, match="No such client"):
            client.client_kill("1.2.3.4:5")
        for words in ("ID 99999", "USER default ADDR 1.2.3.4:5", "TYPE pubsub", "LADDR 1.2.3.4:5", "MAXAGE 1000"):
            assert client.execute_command(*f"CLIENT KILL {words}".split()) == 0
        for words, error in (
            ("FOO 1", "syntax error"),
            ("ID x", "client-id should be greater than 0"),
            ("ID 1 USER", "syntax error"),
            ("TYPE x", "Unknown client type 'x'"),
            ("USER nobody", "No such user 'nobody'"),
            ("SKIPME foo", "syntax error"),
        ):
            with pytest.raises(redis.ResponseError, match=error):
                client.execute_command(*f"CLIENT KILL {words}".split())
        two.sendall(b"CLIENT KILL TYPE normal SKIPME no\r\n")
        assert reads(two, 100) == b":2\r\n"


def test_the_rest_of_client(client: Any) -> None:
    assert client.execute_command("CLIENT NO-EVICT on") in (True, b"OK")
    assert client.execute_command("CLIENT REPLY ON") in (True, b"OK")
    for words, error in (
        ("REPLY OFF", "read the replies, and drop them"),
        ("REPLY X", "syntax error"),
        ("NO-EVICT x", "syntax error"),
        ("PAUSE 10", "one worker process only"),
        ("LIST TYPE x", "Unknown client type 'x'"),
        ("LIST ID x", "Invalid client ID"),
        ("LIST FOO", "syntax error"),
    ):
        with pytest.raises(redis.ResponseError, match=error):
            client.execute_command("CLIENT", *words.split())
