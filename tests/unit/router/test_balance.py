"""Which servers may answer reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.router.balance import ServerHealth, readers
from shardproxy.topology.model import Role, Server, Shard

PRIMARY = Server("a/primary", "127.0.0.1", 1, Role.PRIMARY, "a")
REPLICAS = tuple(Server(f"a/replica{i}", "127.0.0.1", 1 + i, Role.REPLICA, "a") for i in (1, 2, 3))
SHARD = Shard("a", PRIMARY, REPLICAS)
HEALTH = st.builds(ServerHealth, st.booleans(), st.none() | st.floats(0, 10))


@given(st.dictionaries(st.sampled_from([server.name for server in SHARD.servers]), HEALTH))
def test_fit_replicas_or_else_the_primary(health: dict[str, ServerHealth]) -> None:
    chosen = readers(SHARD, health, 5.0)
    assert chosen, "somebody always answers"
    for server in chosen:
        if server is not PRIMARY:
            seen = health[server.name]
            assert seen.up and seen.lag is not None and seen.lag <= 5.0
    left_out = [server for server in REPLICAS if server not in chosen]
    if chosen != (PRIMARY,):
        assert PRIMARY not in chosen
    for server in left_out:
        seen = health.get(server.name, ServerHealth(False))
        assert not seen.up or seen.lag is None or seen.lag > 5.0


@pytest.mark.parametrize(
    ("health", "fit"),
    [
        (ServerHealth(True, 0.0), True),
        (ServerHealth(True, 5.0), True),
        (ServerHealth(True, 5.01), False),
        (ServerHealth(True, None), False),
        (ServerHealth(False, 0.0), False),
    ],
)
def test_a_replica_is_fit_when_it_is_up_and_not_too_far_behind(health: ServerHealth, fit: bool) -> None:
    assert readers(SHARD, {"a/replica2": health}, 5.0) == ((REPLICAS[1],) if fit else (PRIMARY,))


def test_a_replica_is_not_read_before_it_has_applied_what_the_map_asks_for() -> None:
    wanted = frozenset({"0-1-7", "0-1-9"})
    for reached, fit in ((frozenset(), False), (frozenset({"0-1-7"}), False), (wanted | {"0-1-3"}, True)):
        health = {"a/replica1": ServerHealth(True, 0.0, "", reached)}
        assert readers(SHARD, health, 5.0, wanted) == ((REPLICAS[0],) if fit else (PRIMARY,))


def test_a_shard_without_replicas_reads_from_its_primary() -> None:
    assert readers(Shard("a", PRIMARY), {}, 5.0) == (PRIMARY,)
