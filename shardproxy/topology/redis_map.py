"""The stored map of the Redis port: which node has each bucket, and the move that is under way.

With placement "ketama" arcs of its circle (topology.ketama) are what else are buckets; the protocol does not care.
Every change raises `epoch`. A move has a number that is never used again; nodes keep a fence by it (see
protocol.redis.moves). The protocol is that of models/rediskeys.pml, in words in docs/redis-moves.md.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from shardproxy.config.redis_models import RedisSettings
from shardproxy.config.units import Address, parse_address
from shardproxy.errors import MoveError
from shardproxy.topology.barrier import Standing
from shardproxy.topology.ketama import CIRCLE, Continua, Continuum, Server, cuts_of, lengths_of, owners_of
from shardproxy.topology.keys import BUCKETS
from shardproxy.topology.map_form import ArcForm, Buckets, HashForm, joined
from shardproxy.topology.redis_ring import RedisRing, ring_by
from shardproxy.topology.redis_routing import Routing
from shardproxy.topology.ring import place_buckets
from shardproxy.topology.stored import Stored

REDIS_MAP: Final = "redis/map"
REDIS_PROXIES: Final = "redis/proxy/"  # + identity: RedisIdentity

Name = Annotated[str, Field(min_length=1)]
Owned = Annotated[HashForm | ArcForm, Field(discriminator="kind")]
Goal = Sequence[str] | Continuum  # owners of all buckets; or, with placement "ketama", the servers


class Phase(Enum):
    """PREPARED: the source has the keys, and the target is emptied. CLOSING: commands on the keys wait. MOVING: the
    target has them, each after it was pulled from the source."""

    PREPARED = "prepared"
    CLOSING = "closing"
    MOVING = "moving"


class RedisMove(Stored):
    """Buckets, or arcs, on their way. back: the move takes back what an earlier one, the number before, has begun.
    replicas: how many of the target's must have a key before it is dropped at the source; known from MOVING on."""

    id: Annotated[int, Field(ge=1)]
    phase: Phase
    source: Name
    target: Name
    buckets: Annotated[Buckets, Field(min_length=1)]
    back: bool = False
    replicas: Annotated[int, Field(ge=0)] = 0

    @property
    def numbers(self) -> list[int]:
        """The buckets, one by one."""
        return [n for start, end in self.buckets for n in range(start, end)]


class RedisMap(Stored):
    """map: the owners; a bucket of `move` belongs to the move's source. last: number of the newest move ever begun.
    wanted: the owners when all moves will be done, None when nothing is left to do. before: the owners before the first
    of these moves. problem: why they stand still, for people. addresses: of nodes whose replica was promoted, by name;
    `host:port`, in place of the files'. ketama: how keys find their arc; None: they have buckets."""

    format: Literal[1] = 1
    epoch: Annotated[int, Field(ge=1)] = 1
    map: Owned
    last: Annotated[int, Field(ge=0)] = 0
    move: RedisMove | None = None
    wanted: Owned | None = None
    before: Owned | None = None
    problem: str = ""
    addresses: dict[Name, str] = Field(default_factory=dict)
    ketama: Continua | None = None

    @model_validator(mode="after")
    def _check(self) -> RedisMap:
        move = self.move
        kind, units = (ArcForm, len(self.ketama.cuts) + 1) if self.ketama is not None else (HashForm, BUCKETS)
        for owned in (self.map, self.wanted, self.before):
            if owned is not None and not (isinstance(owned, kind) and len(owned.buckets) == units):
                raise ValueError("the map has other buckets, or arcs, than those of its placement")
        if move is not None:
            if move.buckets[-1].end > units:
                raise ValueError("a move has buckets that there are not")
            if move.source == move.target or move.id != self.last:
                raise ValueError("a move goes from one node to another, and is the last one")
            owners = self.map.owners
            if {owners[n] for n in move.numbers} != {move.source}:
                raise ValueError("the buckets of a move are not its source's")
        for address in self.addresses.values():
            parse_address(address)
        return self

    def document(self) -> dict[str, object]:
        found = super().document()
        # Earlier versions do not know them, and may read this meanwhile.
        if not self.addresses:
            del found["addresses"]
        if self.ketama is None:
            del found["ketama"]
        return found

    @property
    def placement(self) -> str:
        """As in the files."""
        return "ring" if self.ketama is None else "ketama"

    @property
    def ring(self) -> RedisRing:
        """By which keys find their bucket or arc: `unit_of`. Its places are those of the nodes' names, sorted."""
        return ring_by(routing(self, {name: n for n, name in enumerate(sorted(self.nodes))}))

    @property
    def nodes(self) -> frozenset[str]:
        """Every node that has keys, or gets some."""
        return frozenset(self.map.shards) | ({self.move.target} if self.move else frozenset())

    def address(self, name: str, in_file: Address) -> Address:
        """Where a node is. in_file: where the file says."""
        stored = self.addresses.get(name)
        return in_file if stored is None else parse_address(stored)


class RedisIdentity(Stored):
    """A run of a proxy with a Redis port. It is stored before the proxy reads the map.

    id: a part of the names of all its connections to nodes. place, standing: as of barrier.Identity. acknowledged: the
    newest epoch than which nothing older is in flight; 0: it serves nothing yet. unmovable: why this proxy, of an
    earlier version, cannot take part in moves; empty when it can. replicas: node → host:port of those that it reads
    from. cache: while a node is away it looks for its keys on others, but not while keys are being moved.
    """

    id: Name
    place: str
    acknowledged: int = 0
    standing: Standing = Standing.ACTIVE
    unmovable: str = ""
    replicas: dict[Name, list[str]] = Field(default_factory=dict)
    cache: bool = False

    def document(self) -> dict[str, object]:
        found = super().document()
        if not self.cache:  # earlier versions do not know it
            del found["cache"]
        return found


def first_map(weights: Mapping[str, int]) -> RedisMap:
    """The map of a ring that nothing was ever moved on."""
    names = sorted(weights)
    owners = place_buckets(weights, {name: i for i, name in enumerate(names)})
    return RedisMap(map=HashForm.of([names[i] for i in owners]))


def first_ketama(servers: Sequence[Server], tag: str = "") -> RedisMap:
    """The map by ketama that nothing was ever moved on. Raises ValueError for servers that no continuum has."""
    continua = Continua(tag=tag, continua=(Continuum(servers=tuple(servers)),))
    return RedisMap(map=ArcForm.of(owners_of(continua.continua[0], continua.cuts)), ketama=continua)


def first_of(redis: RedisSettings) -> RedisMap:
    """The first map by a file."""
    if redis.placement == "ring":
        return first_map({name: node.weight for name, node in redis.nodes.items()})
    return first_ketama(
        [Server(name, node.ketama_name, node.weight) for name, node in redis.nodes.items()], redis.hash_tag
    )


def other_placement(document: RedisMap, redis: RedisSettings) -> str:
    """Why nobody may serve by this map with this file, with what to do; empty when both have the same placement."""
    stored = document.placement, document.ketama.tag if document.ketama is not None else ""
    if stored == (redis.placement, redis.hash_tag):
        return ""
    tags = [f' and hash_tag "{tag}"' if tag else "" for tag in (stored[1], redis.hash_tag)]
    return (
        f'the map store has the keys by placement "{stored[0]}"{tags[0]}, and the file says "{redis.placement}"'
        f"{tags[1]}, by which nobody would find them: change the file; or, if the nodes have no keys that are needed, "
        f"stop all proxies, empty the nodes and delete {REDIS_MAP} in the map store"
    )


def routing(document: RedisMap, order: Mapping[str, int]) -> Routing:
    """The map with places instead of names. Raises KeyError for a node that has none."""
    owners = [order[name] for name in document.map.owners]
    move = document.move
    found = {order[name]: parse_address(text) for name, text in document.addresses.items() if name in order}
    moved = tuple((place, found[place].host, found[place].port) for place in sorted(found))
    last = document.last if move is None or move.phase is not Phase.PREPARED else document.last - 1
    at_home = document.wanted is not None or move is not None
    still = Routing(document.epoch, owners, last, moved=moved, at_home=at_home)
    if document.ketama is not None:
        still = still._replace(cuts=document.ketama.cuts, tag=document.ketama.tag.encode())
    if move is None or move.phase is Phase.PREPARED:
        return still
    return still._replace(
        move=move.id,
        waiting=frozenset(move.numbers),
        source=order[move.source],
        target=order[move.target],
        pulls=move.phase is Phase.MOVING,
        replicas=move.replicas,
    )


def spread(document: RedisMap, goal: Goal) -> tuple[list[str], list[str], list[float]]:
    """The owners now, and those of the goal, of each bucket or arc (cut by both), and its share of all. Raises
    MoveError for a goal of the other placement."""
    if isinstance(goal, Continuum) == (document.ketama is None):
        raise MoveError(f'the map store has the keys by placement "{document.placement}": such a goal has another one')
    if document.ketama is None or not isinstance(goal, Continuum):
        assert not isinstance(goal, Continuum)
        return document.map.owners, list(goal), [1 / BUCKETS] * BUCKETS
    cuts = cuts_of([*document.ketama.continua, goal])
    owners, known = document.map.owners, document.ketama.cuts
    now = [owners[bisect_left(known, cut) % len(known)] for cut in cuts]
    shares = [length / CIRCLE for length in lengths_of(cuts)]
    return [*now, owners[-1]], owners_of(goal, cuts), shares


# ── changes: each gives the next document ──


def want(document: RedisMap, goal: Goal) -> RedisMap:
    """Let it be so in the end. Raises MoveError while other moves are under way, and as `spread`."""
    if document.wanted is not None or document.move is not None:
        raise MoveError("Redis keys are being moved: let it end (`resume`), or cancel it, first")
    now, then, _ = spread(document, goal)
    if document.ketama is None or not isinstance(goal, Continuum):
        return _next(document, wanted=HashForm.of(then), before=document.map)
    both = document.ketama.model_copy(update={"continua": (*document.ketama.continua, goal)})
    before = ArcForm.of(now)  # cut anew: every key stays where it is
    return _next(document, ketama=both, map=before, wanted=ArcForm.of(then), before=before)


def _ended(document: RedisMap) -> RedisMap:
    """All is where it was wanted. The arcs are those of one continuum again."""
    changes: dict[str, object] = {"wanted": None, "problem": ""}
    ketama, owners = document.ketama, document.map.owners
    if ketama is not None:
        # What was wanted is one of them; the newer one when both place all keys alike. The empty key stays where it is:
        # earlier versions gave it to the first server.
        continuum = next(each for each in reversed(ketama.continua) if owners_of(each, ketama.cuts)[:-1] == owners[:-1])
        alone = ketama.model_copy(update={"continua": (continuum,)})
        arcs = ArcForm.of([*owners_of(continuum, alone.cuts)[:-1], owners[-1]])
        changes |= {"ketama": alone, "map": arcs, "before": None}
    return _next(document, **changes)


def next_move(document: RedisMap, most: int) -> RedisMap:
    """Begin the next move towards what is wanted, of `most` buckets at most; when none is left, the document says so.

    Raises MoveError while a move is under way.
    """
    if document.move is not None:
        raise MoveError(f"move {document.move.id} is under way")
    if document.wanted is None:
        return document
    pairs = list(zip(document.map.owners, document.wanted.owners, strict=True))
    first = next((pair for pair in pairs if pair[0] != pair[1]), None)
    if first is None:
        return _ended(document)
    buckets = [n for n, pair in enumerate(pairs) if pair == first][:most]
    move = RedisMove(
        id=document.last + 1, phase=Phase.PREPARED, source=first[0], target=first[1], buckets=joined(buckets)
    )
    return _next(document, move=move, last=move.id, problem="")


def close(document: RedisMap) -> RedisMap:
    """PREPARED → CLOSING: commands on the keys wait."""
    return _step(document, Phase.PREPARED, Phase.CLOSING)


def open_target(document: RedisMap, replicas: int = 0) -> RedisMap:
    """CLOSING → MOVING. Only when nothing that was sent under an older map is in flight. replicas: see RedisMove."""
    opened = _step(document, Phase.CLOSING, Phase.MOVING)
    return opened.model_copy(update={"move": _moving(opened, Phase.MOVING).model_copy(update={"replicas": replicas})})


def complete(document: RedisMap) -> RedisMap:
    """The target has all keys."""
    move = _moving(document, Phase.MOVING)
    return _next(document, move=None, map=_reassigned(document, move))


def give_up(document: RedisMap) -> RedisMap:
    """The move ends before it has moved anything; the next one has another number. Raises MoveError from MOVING on, and
    for the way back."""
    move = document.move
    if move is None or move.phase is Phase.MOVING or move.back:
        raise MoveError("there is no move that has moved nothing yet")
    return _next(document, move=None)


def turn_back(document: RedisMap) -> RedisMap:
    """What has been moved since `want` goes back; what is on its way first."""
    changes: dict[str, object] = {"wanted": document.before}
    move = document.move
    if move is not None and move.phase is not Phase.MOVING and not move.back:
        changes["move"] = None
    elif move is not None and move.phase is Phase.MOVING:
        back = RedisMove(
            id=move.id + 1,
            phase=Phase.CLOSING,
            source=move.target,
            target=move.source,
            buckets=move.buckets,
            back=True,
        )
        changes |= {"move": back, "last": back.id, "map": _reassigned(document, move)}
    turned = _next(document, **changes)
    # When nothing has moved yet no node has to be asked: one may be away.
    return _ended(turned) if turned.move is None and turned.map == turned.wanted else turned


def promoted(document: RedisMap, name: str, address: Address) -> RedisMap:
    """The node is at this address from now on. Raises MoveError while keys are being moved: a node in the middle of a
    move may have keys that its replica has not, and nobody else."""
    if document.wanted is not None or document.move is not None:
        raise MoveError(
            "Redis keys are being moved, and the model of moves knows no node that changes meanwhile: let the move end "
            "(`shardctl rebalance redis resume`), or `cancel` it, first"
        )
    return _next(document, addresses={**document.addresses, name: str(address)})


def noted(document: RedisMap, problem: str) -> RedisMap:
    """With another problem: for people, no new map."""
    return document.model_copy(update={"problem": problem})


def _moving(document: RedisMap, phase: Phase) -> RedisMove:
    move = document.move
    if move is None or move.phase is not phase:
        raise MoveError(f"no move is {phase.value}")
    return move


def _reassigned(document: RedisMap, move: RedisMove) -> HashForm | ArcForm:
    """The owners when the target has what moves."""
    owners = document.map.owners
    for n in move.numbers:
        owners[n] = move.target
    return document.map.of(owners)


def _step(document: RedisMap, before: Phase, after: Phase) -> RedisMap:
    return _next(document, move=_moving(document, before).model_copy(update={"phase": after}))


def _next(document: RedisMap, **changes: object) -> RedisMap:
    changed = document.model_copy(update={**changes, "epoch": document.epoch + 1})
    return RedisMap.model_validate(changed.model_dump())
