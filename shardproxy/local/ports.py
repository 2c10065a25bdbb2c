"""Free loopback ports for servers."""

from __future__ import annotations

import random
import socket

# Below Linux's ephemeral range (32768–60999): a server that is down for a moment cannot lose its port to some client's
# outgoing connection, so `restart()` finds it again.
_FIRST, _LAST = 20_000, 32_000


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now.

    Somebody may take it before the caller does; whoever starts a server tries again with another port then.
    Raises OSError when a thousand tries find none.
    """
    for _ in range(1000):
        port = random.randint(_FIRST, _LAST)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # REUSEADDR as the servers themselves do: a port in TIME_WAIT is free, one in LISTEN is not.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free TCP port between {_FIRST} and {_LAST} on 127.0.0.1")


def accepts(port: int, timeout: float = 0.5) -> bool:
    """Whether something on 127.0.0.1:`port` accepts a TCP connection within `timeout` seconds."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout):
            return True
    except OSError:
        return False
