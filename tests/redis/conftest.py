"""A client of the proxy that a file's tests have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.redis.proxied import RedisProxy


@pytest.fixture
def client(proxy: RedisProxy) -> Iterator[Any]:
    with proxy.connect() as connected:
        connected.flushall()
        yield connected
