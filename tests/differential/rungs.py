"""On which rung of the ladder of plans a statement is, as the running proxy explains it."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException

from shardproxy.protocol.mysql.values import Value
from tests.differential.episodes import Episode, Step

_EVERY = 4  # explaining costs as much as planning: every fourth statement says enough


class Rungs:
    """Asks the admin port of a proxy. `close` it."""

    def __init__(self, admin_port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", admin_port, timeout=30)
        self._met = 0

    def close(self) -> None:
        self._connection.close()

    def of(self, episode: Episode, step: Step) -> str:
        """The rung's name; "" when it is not asked, or when the statement needs its session to be explained."""
        if step.label in ("session", "transaction", "metadata", "reset"):
            return ""
        self._met += 1
        if self._met % _EVERY:
            return ""
        values = [_plain(value) for _, _, value in step.parameters]
        body = json.dumps({"sql": step.sql, "schema": episode.database, "values": values})
        try:
            self._connection.request("POST", "/api/explain", body, {"Content-Type": "application/json"})
            answer = json.loads(self._connection.getresponse().read())
        except (HTTPException, OSError):
            self._connection.close()
            return ""
        name = answer.get("rung_name", "")
        return "" if name == "error" else str(name)


def _plain(value: Value) -> str | int | float | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str | int | float) or value is None else str(value)
