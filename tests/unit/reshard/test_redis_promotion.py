"""What servers say of their replication."""

from __future__ import annotations

import pytest

from shardproxy.reshard.redis_promotion import PromotionError, Replicating, read_replication

PRIMARY = b"# Replication\r\nrole:master\r\nconnected_slaves:1\r\nmaster_replid:abc\r\nmaster_repl_offset:42\r\n"
REPLICA = (
    b"# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\nmaster_link_status:down\r\n"
    b"master_sync_in_progress:1\r\nslave_repl_offset:40\r\nmaster_link_down_since_seconds:-1\r\nmaster_replid:abc\r\n"
    b"master_repl_offset:39\r\n"
)


def test_what_servers_say() -> None:
    assert read_replication(PRIMARY) == Replicating(True, ("", 0), False, False, 0, 42, "abc")
    assert read_replication(REPLICA) == Replicating(False, ("10.0.0.1", 6379), False, True, -1, 40, "abc")


@pytest.mark.parametrize("text", [b"", b"role:master\r\n", PRIMARY.replace(b":42", b":many")])
def test_what_is_something_else(text: bytes) -> None:
    with pytest.raises(PromotionError, match="INFO replication"):
        read_replication(text)
