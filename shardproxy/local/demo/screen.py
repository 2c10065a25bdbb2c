"""What the demo prints: in colours and with a progress bar on a terminal, in plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.syntax import Syntax
from rich.text import Text

_INDENT = 4


class Screen:
    """Words on stdout, complaints on stderr."""

    def __init__(self) -> None:
        self._out = Console(highlight=False)
        self._err = Console(stderr=True, highlight=False)

    @contextmanager
    def work(self, what: str) -> Iterator[Callable[[str], None]]:
        """Something that takes a moment. The block calls what it is given with the result, in a few words."""
        begun = monotonic()
        results: list[str] = []
        if self._out.is_terminal:
            with self._out.status(Text(f"{what} …")):
                yield results.append
        else:
            self.line(f"{what} …")
            yield results.append
        self._done(f"{what}: {', '.join(results)}", monotonic() - begun)

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Work whose progress is counted in rows. The block calls what it is given with the rows just written."""
        begun = monotonic()
        if self._out.is_terminal:
            columns = (TextColumn(f"  {what}"), BarColumn(), MofNCompleteColumn())
            with Progress(*columns, console=self._out, transient=True) as progress:
                task = progress.add_task(what, total=total)
                yield lambda done: progress.advance(task, done)
        else:
            self.line(f"{what} …")
            yield lambda done: None
        self._done(f"{what}: {total:,} rows", monotonic() - begun)

    def _done(self, what: str, seconds: float) -> None:
        self._out.print(Text.assemble(("✓ ", "green"), what, (f" ({seconds:.1f} s)", "dim")), soft_wrap=True)

    def heading(self, text: str) -> None:
        self.line()
        self._out.print(Text(text, "bold"), soft_wrap=True)

    def statement(self, text: str) -> None:
        """SQL, or a command for a shell."""
        if self._out.is_terminal:
            shown = Syntax(text, "sql", theme="ansi_dark", background_color="default", word_wrap=True)
            self._out.print(Padding(shown, (0, 0, 0, 2)))
        else:
            self.line(f"  {text}")

    def went(self, text: str) -> None:
        """Where a statement went."""
        self._indented(f"→ {text}", "cyan")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Rows of a result."""
        cells = [["NULL" if value is None else str(value) for value in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]

        def joined(values: Sequence[str]) -> str:
            return "  ".join(value.ljust(width) for value, width in zip(values, widths, strict=True)).rstrip()

        self._indented(joined(columns), "bold")
        for row in cells:
            self._indented(joined(row))

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Names and what is to be said to each."""
        width = max(len(name) for name, _ in pairs)
        for name, value in pairs:
            self._indented(f"{name.ljust(width)}  {value}")

    def plain(self, text: str) -> None:
        self._indented(text)

    def note(self, text: str) -> None:
        self._indented(text, "dim")

    def error(self, text: str) -> None:
        """The error that a statement got."""
        self._indented(text, "red")

    def line(self, text: str = "") -> None:
        self._out.print(Text(text), soft_wrap=True)

    def complain(self, text: str) -> None:
        """Something about the demo itself, on stderr."""
        self._err.print(Text(text), soft_wrap=True)

    def _indented(self, text: str, style: str = "") -> None:
        """On a terminal long lines go on below their beginning; elsewhere a line is a line."""
        if self._out.is_terminal:
            self._out.print(Padding(Text(text, style), (0, 0, 0, _INDENT)))
        else:
            self.line(" " * _INDENT + text)
