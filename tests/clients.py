"""Threads that are an application's clients, for as long as a block lasts."""

from __future__ import annotations

import threading
from typing import Self

_PATIENCE = 90.0  # seconds until a client that was told to end must have ended


class Clients:
    """`errors` gets what ends a client, also that it does not end. Whoever derives from it fills `_threads`."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(_PATIENCE)
            if thread.is_alive():
                self.errors.append(TimeoutError(f"a client did not end within {_PATIENCE:g} s"))
