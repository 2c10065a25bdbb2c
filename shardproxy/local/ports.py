"""Free loopback ports for servers."""

from __future__ import annotations

import os
import random
import socket
from collections import deque

PORTS = "SHARDPROXY_PORTS"  # "FIRST-LAST": others than the usual ones, for one of several runs at the same time
# Below Linux's ephemeral range (32768–60999): a server that is down for a moment cannot lose its port to some client's
# outgoing connection, so `restart()` finds it again.
_FIRST, _LAST = 20_000, 32_000
_given: deque[int] = deque(maxlen=1000)  # by this process lately: who took one may not listen yet, or be starting anew


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now, and that this process did not give out lately.

    Somebody may take it before the caller does; whoever starts a server tries again with another port then.
    SHARDPROXY_PORTS="FIRST-LAST" says which ports may be taken (default 20000-32000).
    Raises OSError when a thousand tries find none.
    """
    first, last = _range()
    for _ in range(1000):
        port = random.randint(first, last)
        if port in _given:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # REUSEADDR as the servers themselves do: a port in TIME_WAIT is free, one in LISTEN is not.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.append(port)
            return port
    raise OSError(f"no free TCP port between {first} and {last} on 127.0.0.1")


def _range() -> tuple[int, int]:
    first, _, last = os.environ.get(PORTS, "").partition("-")
    return (int(first), int(last)) if last else (_FIRST, _LAST)


def accepts(port: int, timeout: float = 0.5) -> bool:
    """Whether something on 127.0.0.1:`port` accepts a TCP connection within `timeout` seconds."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout):
            return True
    except OSError:
        return False
