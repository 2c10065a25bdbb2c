"""Asking the running proxy over its admin HTTP port."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

from shardproxy.cli.terminal import NoProxy
from shardproxy.config import Config
from shardproxy.config.units import Address
from shardproxy.errors import ShardproxyError

_SECONDS = 10.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (an address to connect to, not to bind)


@dataclass(frozen=True, slots=True)
class AdminClient:
    """Requests to one proxy. Every method raises NoProxy when nothing answers, ShardproxyError when it answers no."""

    address: Address

    @classmethod
    def of(cls, config: Config) -> AdminClient:
        """The proxy that this file configures, asked from the same machine."""
        listen = config.listen.admin
        return cls(Address(_ANY.get(listen.host, listen.host), listen.port))

    def get(self, path: str) -> dict[str, Any]:
        """A JSON object."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A JSON object for a JSON object."""
        return self._ask("POST", path, json.dumps(body).encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=_SECONDS)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body is not None else {})
            response = connection.getresponse()
            status, data = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NoProxy(
                f"no proxy answers at {self.address} ({error}); start it with: shardproxy run --config FILE"
            ) from error
        finally:
            connection.close()
        return self._object(path, status, data)

    def _object(self, path: str, status: int, data: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ShardproxyError(
                f"{self.address}{path} answered {status} without a JSON object: is that a shardproxy admin port?"
            )
        if status >= 400:
            error = answer.get("error")
            message = error.get("message") if isinstance(error, dict) else None
            raise ShardproxyError(f"{self.address}{path} answered {status}: {message or answer}")
        return answer
