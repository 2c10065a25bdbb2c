"""Settings of nodes that no client may change through the proxy: they are about connections, and those are its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

# What is there to be done instead → names, and beginnings of names (with *).
_REFUSED: Final[Mapping[str, str]] = {
    "the proxy could not log in to its nodes any more; who may log in to the proxy is in its [redis.users], and the "
    "password of nodes is changed at each node and in redis.password": """
        requirepass masterauth masteruser primaryauth primaryuser aclfile acl-pubsub-default
    """,
    "the proxy could not reach its nodes any more; where and how they listen is changed at each node, and in "
    "[redis.nodes]": """
        port bind bind-source-addr protected-mode unixsocket* tls-* socket-mark-id rdma-* mptcp
    """,
    "the clients of nodes are the proxy's connections, which all its clients share; limits of clients are in its "
    "[redis], and those of nodes are changed at each node": """
        maxclients maxmemory-clients timeout tcp-keepalive client-output-buffer-limit client-query-buffer-limit
        proto-max-bulk-len
    """,
    "all nodes would get the same, and each needs its own: speak to the node": """
        dir dbfilename appendfilename appenddirname logfile pidfile loadmodule replicaof slaveof replica-* slave-*
        cluster-*
    """,
}
_WHY: Final[Mapping[bytes, str]] = {word.encode(): why for why, words in _REFUSED.items() for word in words.split()}
_BEGINNINGS: Final = tuple(word[:-1] for word in _WHY if word.endswith(b"*"))


def refused_setting(args: Sequence[bytes]) -> str:
    """Why a CONFIG SET is not done, with the setting's name and what to do; empty when it may be."""
    for at in range(2, len(args), 2):
        name = args[at].lower()
        why = _WHY.get(name)
        if why is None:
            why = next((_WHY[beginning + b"*"] for beginning in _BEGINNINGS if name.startswith(beginning)), None)
        if why is not None:
            return f"{name[:128].decode(errors='replace')}: {why}".replace("\r", " ").replace("\n", " ")
    return ""
