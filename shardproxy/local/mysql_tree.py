"""MySQL 9.x: a small Debian unstable tree in the cache, whose programs run by chroot.

Debian 12 packages MariaDB only; Debian unstable has MySQL's server, client and router. The tree is built into
`mysql9.tmp` and renamed when complete, so a build that was killed is noticed and done again. `python -m
shardproxy.local mysql9` builds it.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from shardproxy.errors import LocalError
from shardproxy.local.folders import cache_folder, locked
from shardproxy.local.process import die_with_parent, find_program, missing_program

PACKAGES = "mysql-server-core,mysql-client-core,mysql-router"
NEED_ROOT = "MySQL 9 is built with debootstrap and run by chroot, which need root; run as root (or with sudo)"


def tree_folder() -> Path:
    """Where the tree stands when it is complete."""
    return cache_folder() / "mysql9"


def tree_unavailable() -> str | None:
    """Why MySQL 9 cannot run here, with what to do about it; None when it can (it may have to be built first)."""
    if os.geteuid() != 0:
        return NEED_ROOT
    if tree_folder().is_dir():
        return None
    return missing_program("debootstrap", "apt-get install debootstrap")


def ensure_tree() -> Path:
    """The complete tree, built now if it is missing (half a minute, about 700 MB). Raises LocalError."""
    reason = tree_unavailable()
    if reason is not None:
        raise LocalError(reason)
    with locked("mysql9"):
        if not tree_folder().is_dir():
            _build(tree_folder())
    return tree_folder()


@functools.cache
def tree_version(tree: Path) -> str:
    """Version of the tree's mysqld, as in "9.7.4-2"."""
    command = in_tree(tree, "mysqld", "--no-defaults", "--version")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or " Ver " not in done.stdout:
        raise LocalError(
            f"mysqld --version in {tree} ended with status {done.returncode}: {done.stderr.strip()[-500:]}; "
            f"remove {tree} to have it built again"
        )
    return done.stdout.partition(" Ver ")[2].split()[0]


def in_tree(tree: Path, program: str, *arguments: str) -> list[str]:
    """argv that runs the tree's `program`; paths among the arguments are as seen inside the tree."""
    return ["chroot", str(tree), program, *arguments]


def inside(tree: Path, path: Path) -> str:
    """How the programs of `tree` see the file `path`."""
    return "/" + str(path.relative_to(tree))


def _build(tree: Path) -> None:
    debootstrap = find_program("debootstrap", "apt-get install debootstrap")
    partial = tree.with_name(tree.name + ".tmp")
    _unmount_below(partial)
    shutil.rmtree(partial, ignore_errors=True)
    log = tree.with_name(tree.name + ".log")
    print(f"building MySQL 9.x from Debian unstable in {tree} (half a minute, log in {log})", file=sys.stderr)
    command = [*die_with_parent(), debootstrap, "--variant=minbase", f"--include={PACKAGES}", "unstable", str(partial)]
    with log.open("wb") as output:
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False).returncode
    if status != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise LocalError(
            f"debootstrap ended with exit status {status}; check that Debian's mirror is reachable; "
            f"last lines of {log}:\n{tail}"
        )
    shutil.rmtree(partial / "var/cache/apt/archives", ignore_errors=True)
    tree_version.cache_clear()
    tree_version(partial)  # it runs, or it is not complete
    partial.rename(tree)


def _unmount_below(folder: Path) -> None:
    # debootstrap mounts /proc and /sys in its tree for a while; one that was killed leaves them, and nobody should
    # try to remove the files in there.
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", mount], check=True)
