"""Settings of nodes that no client may change."""

from __future__ import annotations

import pytest

from shardproxy.planner.redis.node_settings import refused_setting

REFUSED = {
    "requirepass masteruser masterauth primaryuser primaryauth acl-pubsub-default": "could not log in",
    "port bind bind-source-addr protected-mode unixsocketperm tls-port tls-cert-file tls-": "could not reach",
    "maxclients maxmemory-clients timeout client-output-buffer-limit proto-max-bulk-len": "are the proxy's connections",
    "dir dbfilename replica-announce-ip slave-read-only cluster-announce-port replicaof": "speak to the node",
}
DONE = [
    *("maxmemory", "maxmemory-policy", "notify-keyspace-events", "slowlog-log-slower-than", "save", "appendonly", "hz"),
    *("min-replicas-to-write", "hash-max-listpack-entries", "latency-tracking", "activedefrag", "nosuch", "", "ports"),
]


@pytest.mark.parametrize(("name", "why"), [(name, why) for names, why in REFUSED.items() for name in names.split()])
def test_refused(name: str, why: str) -> None:
    for shown in (name, name.upper()):
        found = refused_setting([b"CONFIG", b"SET", shown.encode(), b"1"])
        assert found.startswith(f"{name}: ") and why in found
        assert refused_setting([b"config", b"set", b"hz", b"10", shown.encode(), b"1"]) == found, "wherever it stands"


@pytest.mark.parametrize("name", DONE)
def test_done(name: str) -> None:
    assert refused_setting([b"CONFIG", b"SET", name.encode(), b"requirepass"]) == ""


def test_an_error_is_one_short_line() -> None:
    found = refused_setting([b"CONFIG", b"SET", b"tls-\r\n\xff" + b"x" * 9999, b"1"])
    assert found.isprintable() and len(found) < 500
