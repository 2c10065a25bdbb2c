"""A Redis client's connection: its commands go to nodes as they came, its replies come back in its order.

Commands that follow each other to one node are one run: one slice of the client's bytes and one slot for the replies.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from mypy_extensions import i64

from shardproxy import logs
from shardproxy.backend.redis.link import Link
from shardproxy.backend.redis.slot import Slot
from shardproxy.backend.tls import Transport
from shardproxy.executor.redis.joining import JoinedReply
from shardproxy.executor.redis.local_answers import answer
from shardproxy.frontend.redis.about import ABOUT_CLIENTS, about_clients
from shardproxy.frontend.redis.many_keys import ManyKeys
from shardproxy.frontend.redis.own import Own
from shardproxy.frontend.redis.replica_reads import ReplicaReads
from shardproxy.frontend.redis.replies import RedisReplies
from shardproxy.planner.redis.permissions import Permissions
from shardproxy.planner.redis.spec import (
    CommandSpec,
    Join,
    Way,
    arity_error,
    arity_fits,
    key_indexes,
    refusal_error,
    unknown_error,
)
from shardproxy.protocol.redis import encode
from shardproxy.protocol.redis.commands import BROKEN, FOUND, CommandScanner
from shardproxy.router.redis import APART, MANY, NOWHERE, apart_error, hindrance, place_of, split
from shardproxy.router.redis_scan import scan_target

if TYPE_CHECKING:
    from shardproxy.frontend.redis.front import RedisFront

log = logs.Log("redis")

_NO_CURSOR = b"-ERR invalid cursor\r\n"
_NO_AUTH = encode.error("NOAUTH Authentication required.")
_BEFORE_LOGIN = (b"AUTH", b"HELLO", b"QUIT", b"RESET")
_CHANGES_ORDER = (b"HELLO", b"RESET")  # replies of what stands before them come from other connections
_WATCHES = encode.error("ERR shardproxy does not do HELLO while keys are watched: UNWATCH first")
# These see, or end, all keys of one moment, and while keys go from node to node there is no such moment.
_OVER_KEYS = (b"KEYS", b"DBSIZE", b"RANDOMKEY", b"FLUSHALL", b"FLUSHDB")
_KEYS_MOVE = encode.error(
    "TRYAGAIN keys are being moved between nodes: this command needs them all to stand still; SCAN works meanwhile"
)
_TOO_MANY = encode.error("ERR max number of clients reached")


class RedisClient(RedisReplies):
    """One client; an asyncio protocol by its methods, so that it can be compiled."""

    def __init__(self, front: RedisFront) -> None:
        super().__init__(front)
        self.since = self.active = monotonic()
        self._scanner = CommandScanner(front.limits.max_command, self.session.user is not None)
        self.links: list[Link] = []
        self._open = self.session.user is not None
        self._plain = self._open  # and commands are done as they come
        self.own: Own | None = None
        self._again = False  # the command that was found last is still to be done
        self._many: ManyKeys | None = None  # and is a long one
        self._stopped = False  # nothing is done until go_on
        self._barrier = False  # … which is when all replies have been written
        self._late: list[bytes] = []  # received while stopped
        self._late_size: i64 = 0
        self._stopped_at: float = 0.0
        self._reading_paused = False
        self._rules: Permissions | None = None  # of a user for whom not everything is allowed
        self._simple: set[bytes] = front.simple
        self._reads: ReplicaReads | None = None  # of a user whose reads go to replicas
        self._user: str | None = None  # to whom these belong
        self.renew_links()
        self._renew_rules()

    @property
    def unread(self) -> int:
        """Bytes of commands that are still to be done."""
        return self._scanner.waiting + self._late_size

    def renew_links(self) -> None:
        self.links = [node.link(self.session.resp3, self.session.ident) for node in self.front.nodes]
        self.links.append(self.front.nowhere)
        own = self.own
        if own is not None and own.watching is not None:
            self.links[own.watched_at] = own.watching

    def settled(self) -> None:
        """What decides how commands are done has changed."""
        self._open = self._scanner.trusted = self.session.user is not None
        self._plain = self._open and (self.own is None or not self.own.takes_all)
        self.renew_links()

    def _renew_rules(self) -> None:
        """After the user may have changed."""
        front = self.front
        user = self.session.user
        if user == self._user:
            return
        self._user = user
        self._rules = None if user is None else front.permissions.get(user)
        self._simple = front.simple if user is None or self._rules is None else front.simple_for[user]
        self._reads = front.reads_of(user, int(self.session.ident))
        if self._reads is not None:
            self._simple = set()  # each command is looked at

    # ── asyncio.Protocol ──

    def connection_made(self, transport: Transport) -> None:
        front = self.front
        self.transport = transport
        front.accepted += 1
        if len(front.clients) >= front.limits.max_clients or front.draining:
            transport.write(_TOO_MANY)
            transport.close()
            self._ended = True
            return
        front.clients[self.session.ident] = self

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if self._stopped:
            self._late.append(data)
            self._late_size += len(data)
            if self._late_size > self.front.limits.buffer:
                self._pause_reading()
            return
        self._scanner.feed(data)
        self._work()

    def eof_received(self) -> bool:
        """What it has asked for is still answered: `redis-cli --pipe` and `nc` end like this. Not what it may wait for
        for ever, as with Redis."""
        if self.own is not None and self.own.waits:
            return False
        self._ended = self._ended or not self._stopped
        if self._stopped:
            self.session.closing = True
        if self._head is None and not self._stopped:
            return False
        self.session.closing = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self.transport = None
        self.front.clients.pop(self.session.ident, None)
        slot, self._head, self._tail = self._head, None, None
        while slot is not None:  # nodes go on: their replies go nowhere
            slot.taker = None
            slot.take()
            after, slot.after = slot.after, None
            slot = after
        own, self.own = self.own, None
        if own is not None:
            own.close()
        self._release()

    def pause_writing(self) -> None:
        """It takes its replies slowly: no more of its commands until it has."""
        self._writing_paused = True
        self._pause_reading()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._release()
        if not self._stopped:
            self._resume_reading()

    def thinned(self) -> None:
        if not self._stopped:
            self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._reading_paused and self.transport is not None and not self._ended:
            self._reading_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self.transport is not None and not (self._writing_paused or self._crowded):
            self._reading_paused = False
            self.transport.resume_reading()

    # ── commands ──

    def _work(self) -> None:
        """Do all commands that are whole."""
        scanner = self._scanner
        simple = self._simple
        links = self.links
        ring = self.front.ring
        rows = self.front.rows
        used: list[Link] = []
        data = scanner.data
        slot: Slot | None = None  # of the present run
        run: Link | None = None
        begin: i64 = 0
        end: i64 = 0
        done: i64 = 0
        while True:
            if self._again:
                self._again = False
            else:
                found = scanner.next()
                if found != FOUND:
                    if found == BROKEN:
                        self._broken(scanner.error)
                    break
            if scanner.data is not data:  # lines were rewritten: the run's bytes are in the old buffer
                if run is not None:
                    run.out.append(data[begin:end])
                    run = None
                data = scanner.data
            if (
                scanner.count > 1
                and self._plain
                and data[scanner.name : scanner.name_end] in simple
                and (rows is None or not rows.owns(data[scanner.key : scanner.key_end]))
            ):
                link = links[ring.node_of(data[scanner.key : scanner.key_end])]
                if link is run and slot is not None:
                    slot.left += 1
                else:
                    if link.full:
                        self.stop_for(link)
                        break
                    if run is not None:
                        run.out.append(data[begin:end])
                    run = link
                    begin = scanner.start
                    slot = Slot(self, 1)
                    self.append(slot)
                    link.expect(slot)
                    if link.fresh == 0:
                        used.append(link)
                link.fresh += 1
                end = scanner.end
                done += 1
                continue
            if run is not None:
                run.out.append(data[begin:end])
                run = None
            if not self._other(used):
                break
            done += 1
            links = self.links
            simple = self._simple
            if self._ended:
                break
        if run is not None:
            run.out.append(data[begin:end] if begin or end < len(data) else data)
        for link in used:
            link.flush()
        self.front.commands += done
        self.active = monotonic()
        head = self._head
        if head is not None and head.done:
            self.turn.touch(self)
        elif head is not None and self._too_much():
            # Replies of others, and of ours, would come together behind the one that is due.
            self._crowded = True
            self._pause_reading()
        elif self._ended and head is None:
            self._close()

    def _broken(self, why: str) -> None:
        self.reply(encode.error(f"ERR Protocol error: {why}"))
        self._end()

    def _end(self) -> None:
        """Nothing more is listened to; the connection is closed behind the last reply."""
        self._ended = True
        self._late = []
        self._late_size = 0
        self.session.closing = True

    def _other(self, used: list[Link]) -> bool:
        """Do a command that is not simple. used: links with commands to flush. False: it has to wait."""
        scanner = self._scanner
        if scanner.count <= MANY:
            return self._do(scanner.arguments(), used)
        many = self._many
        if many is None:
            many = self._many = ManyKeys(self, scanner)
            self.turn.loop.call_soon(many.step)
        if not many.ready:
            self._again = True
            self._stop()
            return False
        done = self._do(many.args, used)
        if not self._again:
            self._many = None
        return done

    def _do(self, args: list[bytes], used: list[Link]) -> bool:
        """Do it; args: its words. Returns as `_other`."""
        front = self.front
        rows = front.rows
        rules, reads = self._rules, self._reads
        if self._plain and rows is None and rules is None and reads is None:
            spec = front.splits.get(args[0])
            if spec is not None and len(args) >= -spec.min_args:
                return self._split(spec, args, used)
        spec = front.spec_of(args)
        if not self._open and (spec is None or spec.name not in _BEFORE_LOGIN):
            self.reply(_NO_AUTH)
            return True
        denial = b""
        if rules is not None and spec is not None and arity_fits(spec, args):
            denial = rules.denial(spec, args)
        if reads is not None and spec is not None:
            reads.note(spec)
        own = self.own
        if own is not None and not self._plain and own.takes(spec, args):
            return own.refuse(denial) if denial else own.take(spec, args, used)
        if spec is None:
            self.reply(unknown_error(args))
            return True
        if not arity_fits(spec, args):
            self.reply(arity_error(spec))
            return True
        if denial:
            self.reply(denial)
            return True
        if rows is not None:
            if rows.full and rows.wanted_by(spec, args):
                self._again = True
                self._stop()
                rows.when_free(self)
                return False
            taken = rows.take(self, spec, args)
            if taken is not None:
                return bool(taken)
        way = spec.way
        if way is Way.LOCAL:
            return self._local(spec, args)
        if way is Way.KEYED:
            return self._keyed(spec, args, used)
        if way is Way.SPLIT:
            return self._split(spec, args, used)
        if spec.join is Join.CURSOR:
            return self._scan(spec, args, used)
        if way is Way.EVERY and not spec.blocks:
            return self._every(spec, args, used)
        if way is Way.ANY:
            return self.forward(self.links[front.any_node(int(self.session.ident))], self.sent(), used)
        if way is Way.REFUSED:
            self.reply(refusal_error(spec))
            return True
        if own is None:
            own = self.own = Own(self)
        return own.do(spec, args, used)

    def sent(self) -> bytes:
        """The command that was found, as the client has sent it."""
        scanner = self._scanner
        return scanner.data[scanner.start : scanner.end]

    def _local(self, spec: CommandSpec, args: list[bytes]) -> bool:
        if spec.name in _CHANGES_ORDER and self.waits_for_earlier():
            return False
        session = self.session
        own = self.own
        if own is not None and spec.name == b"RESET":
            own.close()
            self.own = None
        if own is not None and spec.name == b"HELLO" and own.watching is not None:
            self.reply(_WATCHES)
            return True
        self.reply(about_clients(self, args) if spec.name in ABOUT_CLIENTS else answer(session, args))
        self.settled()
        self._renew_rules()
        if session.closing:
            self._end()
        return True

    def _all_done(self) -> bool:
        slot = self._head
        while slot is not None:
            if not slot.done:
                return False
            slot = slot.after
        return True

    def _keyed(self, spec: CommandSpec, args: list[bytes], used: list[Link]) -> bool:
        if self.front.puller is not None and self.waits_for_keys(spec, args):
            return False
        place = place_of(spec, args, self.front.ring)
        if place == APART:
            self.reply(apart_error(spec, self.front.ring))
            return True
        if self._hindered(spec, args):
            return True
        if place == NOWHERE:
            place = self.front.keyless_node(int(self.session.ident))
        return self.forward(self._link_for(spec, args, place), self.sent(), used)

    def _hindered(self, spec: CommandSpec, args: list[bytes]) -> bool:
        why = hindrance(spec, args, self.front.ring)
        if why:
            shown = spec.name.decode().replace("|", " ")
            self.reply(encode.error(f"ERR shardproxy does not do this {shown}: {why}"))
        return bool(why)

    def _link_for(self, spec: CommandSpec, args: list[bytes], place: int) -> Link:
        """To a node, or to a replica of it. What is read while keys are watched must be as new as what is watched, and
        while keys move replicas do not have them yet."""
        reads, own = self._reads, self.own
        if reads is None or (own is not None and own.watching is not None):
            return self.links[place]
        front = self.front
        if front.puller is not None and front.ring.any_moves([args[i] for i in key_indexes(spec, args)]):
            return self.links[place]
        link = reads.link(spec, place, self.session.resp3, front.since)
        return self.links[place] if link is None else link

    def forward(self, link: Link, data: bytes, used: list[Link]) -> bool:
        """Send a whole command to one node."""
        if link.full:
            self.stop_for(link)
            return False
        slot = Slot(self, 1)
        self.append(slot)
        self.send(link, slot, data, used)
        return True

    def send(self, link: Link, slot: Slot, data: bytes, used: list[Link]) -> None:
        link.expect(slot)
        if link.fresh == 0:
            used.append(link)
        link.fresh += 1
        link.out.append(data)

    def _split(self, spec: CommandSpec, args: list[bytes], used: list[Link]) -> bool:
        """Give each node its keys, in the client's own bytes; the replies are joined when all are there."""
        if self.front.puller is not None and self.waits_for_keys(spec, args):
            return False
        ring = self.front.ring
        many = self._many
        if many is None:
            nodes, words, keys = split(spec, args, self._scanner.pieces(), ring)
        else:
            nodes, words, keys = many.split(spec, ring)
        if not nodes:
            self.reply(arity_error(spec))
            return True
        links = [self._link_for(spec, args, node) for node in nodes]
        if len(links) == 1:
            return self.forward(links[0], self.sent(), used)
        if self._stops_for_any(links):
            return False
        whole = Slot(self, 1)
        self.append(whole)
        joint = JoinedReply(self.turn, whole, spec.join, keys)
        for i in range(len(links)):
            part = words[i]
            self.send(links[i], joint.part(), b"*%d\r\n%b" % (len(part), b"".join(part)), used)
        return True

    def _scan(self, spec: CommandSpec, args: list[bytes], used: list[Link]) -> bool:
        """Ask the node that the cursor names."""
        front = self.front
        if front.puller is not None and not front.puller.moves:
            self.stop_for(front.nowhere)
            return False
        target = scan_target(args, front.scan)
        if target is None:
            self.reply(_NO_CURSOR)
            return True
        node, words = target
        link = self.links[node]
        if link.full:
            self.stop_for(link)
            return False
        whole = Slot(self, 1)
        self.append(whole)
        joint = JoinedReply(self.turn, whole, spec.join, [], [b"%d" % node], front.scan)
        self.send(link, joint.part(), encode.command(words), used)
        return True

    def _every(self, spec: CommandSpec, args: list[bytes], used: list[Link]) -> bool:
        """Give each node the whole command."""
        if self._hindered(spec, args):
            return True
        puller = self.front.puller
        if puller is not None and spec.name in _OVER_KEYS:
            if not puller.moves:
                self.stop_for(self.front.nowhere)
                return False
            self.reply(_KEYS_MOVE)
            return True
        links = self.links[:-1]
        if self._stops_for_any(links):
            return False
        whole = Slot(self, 1)
        self.append(whole)
        joint = JoinedReply(self.turn, whole, spec.join, [], args)
        data = self.sent()
        for link in links:
            self.send(link, joint.part(), data, used)
        return True

    def _stops_for_any(self, links: list[Link]) -> bool:
        for link in links:
            if link.full:
                self.stop_for(link)
                return True
        return False

    # ── waiting ──

    def stop_for(self, link: Link) -> None:
        """The command that was found last has to wait for a link."""
        self._again = True
        self._stop()
        link.when_free(self)

    def waits_for_earlier(self) -> bool:
        """Whether the command that was found last has to wait until all before it are done: it, or what comes behind
        it, goes to other connections than they do."""
        if self._head is None or self._all_done():
            return False
        self._again = True
        self._barrier = True
        self._stop()
        return True

    def wait_for_reply(self) -> None:
        """Nothing more is done until all replies are there. It is still read, up to a limit: to see when it is gone."""
        self._stopped = True
        self._stopped_at = monotonic()
        self._barrier = True
        self.front.commands += 1
        if self._late_size <= self.front.limits.buffer:
            self._resume_reading()

    def waits_for_keys(self, spec: CommandSpec, args: list[bytes]) -> bool:
        """Whether some of a command's keys are on their way. Then it waits for them. To be asked before its keys are
        placed, while there is a puller."""
        ring = self.front.ring
        for index in key_indexes(spec, args):
            if ring.waits(args[index]):
                self.stop_for(self.front.nowhere)
                return True
        return False

    def wanted_keys(self) -> list[bytes]:
        args = self._scanner.arguments() if self._many is None else self._many.args
        spec = self.front.spec_of(args)
        ring = self.front.ring
        return [] if spec is None else [args[i] for i in key_indexes(spec, args) if ring.waits(args[i])]

    def refuse(self, error: bytes) -> None:
        if self._again:
            self._again = False
            self._many = None
            own = self.own
            if own is not None and own.queued >= 0:
                own.refuse(error)
            else:
                self.reply(error)
        self.go_on()

    def _stop(self) -> None:
        self._stopped = True
        self._pause_reading()

    def go_on(self) -> None:
        if self.transport is None or not self._stopped or self._broken_off:
            return
        self._stopped = False
        own = self.own
        if own is not None:
            own.go_on()
        self._work()
        while self._late and not self._stopped and not self._ended:
            data = self._late.pop(0)
            self._late_size -= len(data)
            self._scanner.feed(data)
            self._work()
        if not self._stopped:
            self._resume_reading()
            if self.session.closing and self._head is None:
                self._close()
        elif self.session.closing and self.own is not None and self.own.waits:
            self._close()  # it sends nothing any more, and would wait for what may never come: see eof_received

    def all_written(self) -> None:
        """All replies have been."""
        reads = self._reads
        if reads is not None and reads.writing:
            reads.settled()
        if self._barrier:
            self._barrier = False
            self.turn.loop.call_soon(self.go_on)
        elif self._ended or (self.session.closing and not self._stopped):
            self._close()

    # ── time ──

    def tick(self, now: float) -> None:
        """To be called about once a second."""
        limits = self.front.limits
        if self._waits and now - self._stalled > limits.stall:
            self.front.slow_closed += 1
            self.abort(f"it has not taken its replies for {limits.stall:g} s")
        elif self._head is None and now - self.active > limits.idle and (self.own is None or not self.own.listens):
            self._close()
        elif self.own is not None and self._stopped:
            self.own.tick(now - self._stopped_at)

    def close_when_idle(self) -> None:
        """The worker drains."""
        if self._head is None and not self._stopped and (self.own is None or not self.own.holds):
            self._close()
