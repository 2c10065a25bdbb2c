"""A process beside the bench that is told what to do: a JSON object a line in, one a line out.

Its work is not on the bench's own CPU time, its memory can be measured, and it runs compiled when the proxy does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shardproxy.local import LocalError
from shardproxy.local.proxy_environment import proxy_environment

_ROOT = Path(__file__).parents[2]


class Companion:
    """`python -m MODULE ARGUMENT`, ended with the block. `ask` sends an order and waits for its answer."""

    def __init__(self, module: str, argument: dict[str, Any]) -> None:
        environment = {**os.environ, **proxy_environment()}
        environment["PYTHONPATH"] = f"{environment['PYTHONPATH']}{os.pathsep}{_ROOT}"
        self._name = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(argument)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def ask(self, order: str, **more: Any) -> dict[str, Any]:
        """Raises LocalError with what went wrong there."""
        self.tell(order, **more)
        return self.answer()

    def tell(self, order: str, **more: Any) -> None:
        """An order whose answer is fetched later."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"order": order, **more}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LocalError(f"{self._name} ended without a word; what it said is above")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise LocalError(f"{self._name}: {found['error']}")
        return found

    def __enter__(self) -> Companion:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def orders() -> Iterator[dict[str, Any]]:
    """In the companion: the orders, until the bench is gone."""
    for line in sys.stdin:
        yield json.loads(line)


def reply(work: Callable[[], dict[str, Any]]) -> None:
    """In the companion: answer with what `work` gives, or with its error."""
    try:
        found = work()
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found), flush=True)
