"""What `./dev` asks of this package: `python -m shardproxy.local` with `mysql9` (build its tree) or `clean`."""

from __future__ import annotations

import sys

from shardproxy.errors import LocalError
from shardproxy.local.mysql_tree import ensure_tree, tree_version
from shardproxy.local.records import clean_stale


def main(arguments: list[str]) -> str | None:
    """Run one command; gives an error message, or None after success."""
    match arguments:
        case ["mysql9"]:
            try:
                tree = ensure_tree()
                print(f"MySQL {tree_version(tree)} in {tree}")
            except LocalError as error:
                return str(error)
        case ["clean"]:
            for cluster in clean_stale():
                print(f"ended cluster {cluster}, whose owner is dead")
        case _:
            return "usage: python -m shardproxy.local mysql9|clean"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
