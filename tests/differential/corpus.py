"""Statements written by hand, by feature: files of tests/differential/corpus, whose README says how they are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.differential.episodes import COUNT, ORDERED, ROWS, Episode, Step

FOLDER = Path(__file__).parent / "corpus"
_STATEMENT = re.compile(r"(.*);(?:\s*--\s*(.*))?$", re.DOTALL)
_TRANSACTION = ("begin", "start", "commit", "rollback", "savepoint", "release")
_WRITES = ("insert", "replace", "update", "delete", "truncate")
_ABOUT_THE_LAST = re.compile(r"show (warnings|errors)|select (row_count|found_rows|last_insert_id)", re.IGNORECASE)
_BEHIND_WITH = re.compile(r"with\b.*\)\s*(update|delete)\b", re.IGNORECASE | re.DOTALL)
_SESSION = re.compile(r"set autocommit", re.IGNORECASE)


class BadCorpus(Exception):
    """A file that cannot be read; names the file and the line."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An episode of a file. only: the kind of server that knows its statements, "" for all; error: none takes it."""

    episode: Episode
    line: int
    only: str = ""
    error: bool = False


@dataclass(slots=True)
class _Reader:
    path: Path
    feature: str = ""
    lines: list[str] = field(default_factory=list)
    session: list[Step] | None = None

    def read(self) -> Iterator[Entry]:
        text = self.path.read_text().splitlines()
        if not text[0].startswith("-- databases: "):
            raise BadCorpus(f"{self.path.name}:1: found {text[0]!r}; expected -- databases: NAME…")
        databases = text[0].removeprefix("-- databases: ").split()
        for number, line in enumerate(text[1:], 2):
            for entry in self._line(number, line.strip()):
                for database in databases:
                    yield replace(entry, episode=replace(entry.episode, database=database))

    def _line(self, number: int, line: str) -> Iterator[Entry]:
        if line.startswith("-- feature: "):
            self.feature = line.removeprefix("-- feature: ")
        elif line == "-- session":
            self.session = []
        elif line == "-- end":
            yield Entry(Episode("", tuple(self.session or ())), number)
            self.session = None
        elif line:
            self.lines.append(line)
            found = _STATEMENT.match("\n".join(self.lines))
            if found:
                self.lines.clear()
                yield from self._statement(number, found.group(1), (found.group(2) or "").replace(",", " ").split())

    def _statement(self, number: int, sql: str, flags: list[str]) -> Iterator[Entry]:
        only = flags[flags.index("only") + 1] if "only" in flags else ""
        unknown = set(flags) - {"ordered", "count", "float", "json", "error", "only", "mariadb", "mysql"}
        if unknown:
            raise BadCorpus(f"{self.path.name}:{number}: found {sorted(unknown)} behind the statement")
        compare = ORDERED if "ordered" in flags else COUNT if "count" in flags else ROWS
        step = Step(label_of(sql, self.feature), sql, compare=compare,
                    loose=tuple(flag for flag in ("float", "json") if flag in flags))  # fmt: skip
        if self.session is not None:
            self.session.append(replace(step, follows=bool(_ABOUT_THE_LAST.match(sql))))
            return
        steps = (step, replace(step, prepared=True)) if step.label.startswith("select") else (step,)
        yield Entry(Episode("", steps), number, only, "error" in flags)


def label_of(sql: str, feature: str) -> str:
    """A step's label: its kind, which says how it is run and compared, and the feature that it shows."""
    behind_with = _BEHIND_WITH.match(sql)
    verb = behind_with.group(1).lower() if behind_with else sql.lstrip("( ").split(None, 1)[0].lower()
    if verb in _TRANSACTION or _SESSION.match(sql):
        return "transaction"
    if verb in _WRITES:
        return f"{'delete' if verb == 'truncate' else verb} ({feature})"
    if verb in ("set", "use", "show"):
        return "session"
    return f"select ({feature})"


def files() -> list[Path]:
    """All files of the corpus."""
    return sorted(FOLDER.glob("*.sql"))


def entries(path: Path) -> list[Entry]:
    """The episodes of a file, for each of its databases. Raises BadCorpus."""
    return list(_Reader(path).read())
