"""How a client's arguments find what is known of their command. The interface of this package.

Arguments are a whole command as the client sent it, its name first. Names are compared without regard to case.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.planner.redis.command import CommandSpec, Finder, Join, Way
from shardproxy.planner.redis.finders import stream_options
from shardproxy.planner.redis.table import CONTAINERS, SPECS, WAITERS

__all__ = [
    "CommandSpec",
    "Finder",
    "Join",
    "Way",
    "arity_error",
    "arity_fits",
    "find_spec",
    "key_indexes",
    "refusal_error",
    "unknown_error",
]


def key_indexes(spec: CommandSpec, args: Sequence[bytes]) -> Sequence[int]:
    """The places of the keys (of the channels, for a spec that says so) among the arguments, in ascending order.

    Empty when there are none, also when the arguments are not well formed: what a node says to that is the answer.
    """
    if spec.find is not None:
        return spec.find(args)
    first = spec.first
    if first == 0:
        return ()
    count = len(args)
    last = spec.last
    if last < 0:
        last += count
    if last >= count:
        return range(first, count, spec.step)
    return range(first, last + 1, spec.step)


def arity_fits(spec: CommandSpec, args: Sequence[bytes]) -> bool:
    """Whether a command has as many arguments as it must."""
    wanted = spec.min_args
    return len(args) == wanted if wanted > 0 else len(args) >= -wanted


def find_spec(args: Sequence[bytes]) -> CommandSpec | None:
    """The spec of a command with at least its name; None when no server that we know has the command."""
    spec = SPECS.get(args[0])
    if spec is None:
        spec = SPECS.get(args[0].upper())
        if spec is None:
            return None
    name = spec.name
    if len(args) > 1 and name in CONTAINERS:
        return SPECS.get(name + b"|" + args[1].upper())
    if name in WAITERS and stream_options(args)[1] > 0:
        return WAITERS[name]
    return spec


def unknown_error(args: Sequence[bytes]) -> bytes:
    """The error line, as Redis words it, for a command that `find_spec` does not find."""
    name = args[0].upper()
    if name in CONTAINERS and len(args) > 1:
        return b"-ERR unknown subcommand '%s'. Try %s HELP.\r\n" % (_printable(args[1]), name)
    shown = bytearray()
    for argument in args[1:]:
        if len(shown) >= 128:
            break
        shown += b"'%s' " % _printable(argument[: 128 - len(shown)])
    return b"-ERR unknown command '%s', with args beginning with: %s\r\n" % (_printable(args[0]), bytes(shown))


def arity_error(spec: CommandSpec) -> bytes:
    """The error line, as Redis words it, for a command that has too few or too many arguments."""
    return b"-ERR wrong number of arguments for '%s' command\r\n" % spec.name.lower()


def refusal_error(spec: CommandSpec) -> bytes:
    """The error line for a REFUSED command."""
    name = spec.name.replace(b"|", b" ")
    return b"-ERR shardproxy does not do %s: %s\r\n" % (name, spec.refusal.encode())


def _printable(text: bytes) -> bytes:
    # An error is one line.
    return text[:128].replace(b"\r", b" ").replace(b"\n", b" ")
