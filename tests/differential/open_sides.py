"""Both sides for the open corpus: empty databases, tables that come and go with its statements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress

from shardproxy.local import LocalCluster, LocalServer
from tests.differential import open_corpus
from tests.differential.episodes import Step
from tests.differential.open_corpus import DATABASES, Statement
from tests.differential.outcomes import Outcome, ask, difference
from tests.differential.runs import EQUAL, FAILED, INVALID, MISMATCH, REFUSED, Verdict
from tests.proxy import start_proxy
from tests.wire import RawClient, Refused

_ACCOUNT = {"open": {"password": "open", "reads": "primary"}}
_TRIED = ("select", "insert", "replace", "update", "delete", "show", "desc", "describe", "explain")


class OpenSides:
    """A lone server, and a proxy over three shards that knows the corpus's tables. `close` ends the proxy."""

    def __init__(self, cluster: LocalCluster, oracle: LocalServer) -> None:
        self.flavor = cluster.flavor
        self._oracle = oracle
        for server in (oracle, *(shard.primary for shard in cluster.shards)):
            with RawClient(server.port, server.admin_user, server.admin_password, None) as admin:
                for database in DATABASES:
                    admin.query(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
                admin.query("SET GLOBAL innodb_lock_wait_timeout = 1")
                admin.query("SET GLOBAL lock_wait_timeout = 2")
        keyspaces = open_corpus.keyspaces()
        self.proxy = start_proxy(cluster, "open", users=_ACCOUNT, keyspaces=keyspaces, proxy={"workers": 1})
        with RawClient(oracle.port, oracle.admin_user, oracle.admin_password, None) as admin:
            rows = admin.rows("SELECT id, character_set_name FROM information_schema.collations")
        self._charsets = {int(ident): str(charset) for ident, charset in rows if isinstance(ident, bytes)}

    def close(self) -> None:
        self.proxy.process.stop()

    def _clients(self, database: str) -> tuple[RawClient, RawClient]:
        oracle = self._oracle
        return (
            RawClient(self.proxy.port, "open", "open", database),
            RawClient(oracle.port, oracle.admin_user, oracle.admin_password, database),
        )

    def run(self, statements: list[Statement]) -> Iterator[tuple[Statement, Verdict]]:
        """Runs a file's statements, up to a write or a schema change that the sides answer differently; drops its
        tables."""
        with ExitStack() as stack:
            sessions: dict[str, tuple[RawClient, RawClient, RawClient]] = {}
            for statement in statements:
                if statement.conn not in sessions:
                    proxy, oracle = map(stack.enter_context, self._clients(statement.database))
                    judge = stack.enter_context(self._clients(statement.database)[1])
                    sessions[statement.conn] = (proxy, oracle, judge)
                verdict = self._one(statement, *sessions[statement.conn])
                yield statement, verdict
                if verdict.kind == MISMATCH and not statement.step.label.startswith("select"):
                    break
        self._drop(statements)

    def _one(self, statement: Statement, proxy: RawClient, oracle: RawClient, judge: RawClient) -> Verdict:
        step = statement.step
        mine = ask(proxy, step)[0]
        if mine.refused:
            valid = step.label.split()[0] not in _TRIED or self._taken(judge, step)
            return Verdict(step, REFUSED if valid else INVALID, mine.message)
        theirs = ask(oracle, step)[0]
        # Of a schema change only its success: the proxy tells no counts.
        plain = (Outcome(mine.error), Outcome(theirs.error)) if statement.ddl else (mine, theirs)
        found = self._difference(step, *plain)
        if found:
            return Verdict(step, MISMATCH, mismatch=found, details=f"proxy:  {mine.shown()}\nserver: {theirs.shown()}")
        if step.label == "session":
            ask(judge, step)
        return Verdict(step, FAILED if theirs.error else EQUAL)

    def _difference(self, step: Step, mine: Outcome, theirs: Outcome) -> str:
        return difference(step, mine, theirs, self._charsets, uncounted=True)

    def _taken(self, judge: RawClient, step: Step) -> bool:
        """Whether the lone server answers a statement without an error; nothing that it does stays."""
        ask(judge, Step("transaction", "BEGIN"))
        answer = ask(judge, step)[0]
        ask(judge, Step("transaction", "ROLLBACK"))
        return not answer.error

    def _drop(self, statements: list[Statement]) -> None:
        texts = " ".join(statement.step.sql.lower() for statement in statements)
        proxy, oracle = self._clients(DATABASES[0])
        with proxy, oracle:
            for name in open_corpus.table_names():
                if name.split("`")[1] in texts:
                    for client in (proxy, oracle):
                        with suppress(Refused):
                            client.query(f"DROP TABLE IF EXISTS {name}")
