"""The map store in etcd in trouble: restarted, frozen, cut off, its answers lost, full. It says which, in time."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from shardproxy.errors import DocumentError, StoreConflict, StoreOutcomeUnknown, StoreUnavailable
from shardproxy.local import LocalEtcd
from shardproxy.local.etcd import EtcdMember
from shardproxy.store.etcd import EtcdStore
from shardproxy.store.gateway import Gateway
from shardproxy.store.interface import ABSENT, Change, Condition, Entry, MapStore, Put
from shardproxy.store.settle import settle
from tests.stores import TIMEOUT, WAIT, Place, Relay, fails, until, within

# ── etcd ──


@pytest.fixture(scope="module")
def etcd() -> Iterator[LocalEtcd]:
    with LocalEtcd() as cluster:
        yield cluster


@pytest.fixture
def three() -> Iterator[LocalEtcd]:
    with LocalEtcd(3) as cluster:
        yield cluster


def place_of(endpoints: list[str], prefix: str = "t/", **settings: Any) -> Place:
    return Place({"kind": "etcd", "endpoints": endpoints, "prefix": prefix, "timeout": "1s", **settings})


def target_of(member: EtcdMember) -> tuple[str, int]:
    return "127.0.0.1", member.port


def test_a_restart_of_etcd_loses_nothing_and_watches_go_on() -> None:
    with LocalEtcd() as cluster:

        async def main() -> None:
            async with place_of(cluster.endpoints, timeout="5s").store() as store:
                version = await store.put("a", {"n": 0}, ABSENT)
                async with aclosing(store.watch("a", version)) as watch:
                    for n in range(1, 4):
                        seen = asyncio.ensure_future(anext(watch))
                        await asyncio.sleep(0)
                        await asyncio.to_thread(cluster.members[0].process.kill)
                        await asyncio.to_thread(cluster.members[0].process.start)
                        assert await store.get("a") == Entry("a", {"n": n - 1}, version)
                        version = await store.put("a", {"n": n}, version)
                        changes = await seen
                        assert (changes.revision, changes.changes) == (version, (Change("a", {"n": n}),))

        within(60, main)


def test_an_etcd_that_is_gone_is_unavailable_and_nothing_was_changed() -> None:
    with LocalEtcd() as cluster:

        async def main() -> None:
            async with place_of(cluster.endpoints).store() as store:
                version = await store.put("a", {"n": 1}, ABSENT)
                cluster.members[0].process.kill()
                await fails(store.get("a"), StoreUnavailable)
                await fails(store.list("a"), StoreUnavailable)
                assert "nothing was changed" in await fails(store.put("a", {"n": 2}, version), StoreUnavailable)
                await fails(store.grant(5), StoreUnavailable)
                await asyncio.to_thread(cluster.members[0].process.start)
                assert await store.get("a") == Entry("a", {"n": 1}, version)

        within(60, main)


def test_an_etcd_that_is_gone_or_frozen_ends_watches_in_time() -> None:
    with LocalEtcd() as cluster:

        async def main() -> None:
            async with place_of(cluster.endpoints).store() as store:
                for stop in (cluster.members[0].process.suspend, cluster.members[0].process.kill):
                    revision = await store.commit([], [Put("a", {"n": 1})])
                    async with aclosing(store.watch("a", revision)) as watch:
                        waiting = asyncio.ensure_future(anext(watch))
                        await asyncio.wait([waiting], timeout=0.2)
                        stop()
                        await fails(_result_of(waiting), StoreUnavailable, 2 * TIMEOUT)
                    cluster.members[0].process.resume() if cluster.members[0].process.running else None

        within(WAIT, main)


async def _result_of(future: asyncio.Future[Any]) -> Any:
    return await future


def test_a_frozen_etcd_leaves_changes_unknown_and_may_make_them_later() -> None:
    with LocalEtcd() as cluster:

        async def main() -> None:
            async with place_of(cluster.endpoints).store() as store:
                version = await store.put("a", {"n": 1}, ABSENT)
                cluster.members[0].process.suspend()
                await fails(store.get("a"), StoreUnavailable)
                await fails(store.put("a", {"n": 2}, version), StoreOutcomeUnknown)
                cluster.members[0].process.resume()
                # Sent again under the same condition: one of the two is made, and it is known which version that gave.
                settled = await settle(store, [Condition("a", version)], [Put("a", {"n": 2})], WAIT, doubted=True)
                assert await store.get("a") == Entry("a", {"n": 2}, settled)

        within(WAIT, main)


@pytest.mark.parametrize("mode", ["mute", "deaf"])
def test_a_lost_answer_is_of_unknown_outcome_and_can_be_settled(etcd: LocalEtcd, mode: Any) -> None:
    async def main() -> None:
        async with (
            Relay(target_of(etcd.members[0])) as relay,
            place_of([relay.address], f"lost-{mode}/").store() as store,
            place_of(etcd.endpoints, f"lost-{mode}/").store() as direct,
        ):
            version = await store.put("a", {"by": "nobody"}, ABSENT)
            relay.mode = mode
            await fails(store.put("a", {"by": "me"}, version), StoreOutcomeUnknown)
            await fails(store.get("a"), StoreUnavailable)
            entry = await direct.get("a")
            assert entry is not None and entry.value == {"by": "me" if mode == "mute" else "nobody"}
            relay.cut()
            unsettled = settle(store, [Condition("a", version)], [Put("a", {"by": "me"})], TIMEOUT)
            await fails(unsettled, StoreOutcomeUnknown, 2 * TIMEOUT + 0.2)
            relay.cut()
            relay.mode = "pass"
            if mode == "mute":
                await fails(store.put("a", {"by": "me"}, version), StoreConflict)
            else:
                settled = await settle(store, [Condition("a", version)], [Put("a", {"by": "me"})], WAIT)
                assert await direct.get("a") == Entry("a", {"by": "me"}, settled)

    within(WAIT, main)


def test_settle_recognises_its_own_change_when_only_the_answer_was_lost(etcd: LocalEtcd) -> None:
    async def main() -> None:
        async with (
            Relay(target_of(etcd.members[0])) as relay,
            place_of([relay.address], "own/").store() as store,
            place_of(etcd.endpoints, "own/").store() as direct,
        ):
            writes = [Put("a", {"by": "me"}), Put("b", {"by": "me"})]
            relay.mode = "mute"
            settling = asyncio.create_task(settle(store, [Condition("a", ABSENT)], writes, WAIT))

            async def made() -> bool:
                return await direct.get("a") is not None

            await until(made)
            relay.mode = "pass"
            relay.cut()
            entry = await direct.get("a")
            assert entry is not None and await settling == entry.version
            assert (await direct.list("")).entries == (Entry("a", {"by": "me"}, entry.version),
                                                       Entry("b", {"by": "me"}, entry.version))  # fmt: skip

    within(WAIT, main)


def test_a_connection_that_breaks_under_a_change_is_of_unknown_outcome(etcd: LocalEtcd) -> None:
    async def main() -> None:
        async with (
            Relay(target_of(etcd.members[0])) as relay,
            place_of([relay.address], "broken/").store() as store,
        ):
            relay.mode = "deaf"
            change = asyncio.create_task(fails(store.put("a", {}, ABSENT), StoreOutcomeUnknown))

            async def sent() -> bool:
                return relay.requests > 0

            await until(sent)
            relay.cut()
            await change

    within(WAIT, main)


@pytest.mark.parametrize("how", ["kill", "suspend"])
def test_two_of_three_members_go_on(three: LocalEtcd, how: str) -> None:
    """Whichever member fails: reads are answered, changes come through or are told to be unknown, watches go on."""

    async def main() -> None:
        # Long enough for several elections: members that ask for votes at the same time begin anew.
        async with place_of(three.endpoints, timeout="6s").store() as store:
            version = await store.put("a", {"n": 0}, ABSENT)
            async with aclosing(store.watch("a", version)) as watch:
                for n, member in enumerate(three.members, 1):
                    seen = asyncio.ensure_future(anext(watch))
                    await asyncio.sleep(0)
                    getattr(member.process, how)()
                    assert await store.get("a") == Entry("a", {"n": n - 1}, version)
                    version = await settle(store, [Condition("a", version)], [Put("a", {"n": n})], WAIT)
                    changes = await seen
                    assert (changes.revision, changes.changes) == (version, (Change("a", {"n": n}),))
                    await asyncio.to_thread(member.process.start if how == "kill" else member.process.resume)
                    async with place_of([member.address], timeout="6s").store() as back:
                        await back.get("a")  # it has what was changed meanwhile: else it could not lead, only disturb

    within(120, main)


def test_one_of_three_members_answers_nothing(three: LocalEtcd) -> None:
    async def main() -> None:
        alone = three.members[2]
        async with place_of([alone.address]).store() as store:
            version = await store.put("a", {"n": 1}, ABSENT)
            for member in three.members[:2]:
                member.process.suspend()
            await fails(store.get("a"), StoreUnavailable)
            with pytest.raises((StoreUnavailable, StoreOutcomeUnknown)):
                await store.put("a", {"n": 2}, version)
            await fails(anext(store.watch("a", version)), StoreUnavailable)

    within(WAIT, main)


def test_documents_of_others_are_refused_with_their_place(etcd: LocalEtcd) -> None:
    async def main() -> None:
        gateway = Gateway([etcd.members[0].url], TIMEOUT)
        # "foreign/a", "foreign/b" = "{", "[1]"
        await gateway.change("/v3/kv/put", {"key": "Zm9yZWlnbi9h", "value": "ew=="})
        await gateway.change("/v3/kv/put", {"key": "Zm9yZWlnbi9i", "value": "WzFd"})
        await gateway.close()
        async with place_of(etcd.endpoints, "foreign/").store() as store:
            assert "a: found no JSON" in await fails(store.get("a"), DocumentError)
            assert "b: found list" in await fails(store.get("b"), DocumentError)
            await fails(store.list(""), DocumentError)

    within(WAIT, main)


def test_what_is_no_etcd_is_unavailable() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with place_of([f"127.0.0.1:{port}"]).store() as store:
                await fails(store.get("a"), StoreUnavailable)
                await fails(store.put("a", {}, ABSENT), StoreOutcomeUnknown)
                await fails(anext(store.watch("a", 0)), StoreUnavailable)

    within(WAIT, main)


# ── etcd's doors ──


@pytest.mark.parametrize("token", ["simple", "jwt"])
def test_a_login_is_used_renewed_and_needed(tmp_path: Path, token: str) -> None:
    """Simple tokens are gone when etcd restarts; signed ones are stale as soon as any user or right has changed."""
    options = ["--auth-token", "simple" if token == "simple" else _signed_tokens(tmp_path), "--bcrypt-cost", "4"]
    with LocalEtcd(server_options=options) as cluster:
        member = cluster.members[0]

        async def main() -> None:
            await _enable_login(member)
            known = place_of(cluster.endpoints, timeout="5s", user="root", password="secret")
            async with known.store() as store, known.store() as other:
                version = await store.put("a", {"n": 1}, ABSENT)
                async with aclosing(store.watch("a", version - 1)) as watch:
                    assert (await anext(watch)).revision == version
                await asyncio.to_thread(member.process.kill)
                await asyncio.to_thread(member.process.start)
                assert await store.get("a") == Entry("a", {"n": 1}, version)
                version = await store.put("a", {"n": 2}, version)
                assert isinstance(other, EtcdStore)
                await other.get("a")
                await other._gateway.change("/v3/auth/user/add", {"name": "guest", "password": "guest"})
                version = await store.put("a", {"n": 3}, version)
            for place in (known.having(password="wrong"), place_of(cluster.endpoints)):
                async with place.store() as store:
                    await fails(store.get("a"), StoreUnavailable)
                    await fails(store.put("b", {}, ABSENT), StoreUnavailable)
                    await fails(anext(store.watch("a", 0)), StoreUnavailable)
            async with known.store() as store:
                assert (await store.list("")).entries == (Entry("a", {"n": 3}, version),)

        within(60, main)


async def _enable_login(member: EtcdMember) -> None:
    gateway = Gateway([member.url], 5)
    await gateway.change("/v3/auth/user/add", {"name": "root", "password": "secret"})
    await gateway.change("/v3/auth/role/add", {"name": "root"})
    await gateway.change("/v3/auth/user/grant", {"user": "root", "role": "root"})
    await gateway.change("/v3/auth/enable", {})
    await gateway.close()


def _signed_tokens(folder: Path) -> str:
    """The value of --auth-token, with a new key."""
    key = rsa.generate_private_key(65537, 2048)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "token.key").write_bytes(private)
    (folder / "token.pub").write_bytes(public)
    return f"jwt,pub-key={folder / 'token.pub'},priv-key={folder / 'token.key'},sign-method=RS256,ttl=10m"


def test_a_store_that_is_full_changes_nothing_and_says_so() -> None:
    with LocalEtcd(server_options=["--quota-backend-bytes", str(1 << 20)]) as cluster:

        async def main() -> None:
            async with place_of(cluster.endpoints, timeout="5s").store() as store:
                with pytest.raises(StoreUnavailable, match="space exceeded"):
                    await _fill(store)
                listing = await store.list("")
                await fails(store.put("more", {}, ABSENT), StoreUnavailable, 5)
                assert await store.list("") == listing

        within(WAIT, main)


async def _fill(store: MapStore) -> None:
    for n in range(100):
        await store.put(f"k{n}", {"text": "x" * 100_000}, ABSENT)


def test_tls_is_spoken_and_a_stranger_is_not_trusted(etcd: LocalEtcd, tmp_path: Path) -> None:
    for name in ("ours", "strangers"):
        _certificate(tmp_path, name)

    async def main() -> None:
        async with _tls_in_front(etcd.members[0], tmp_path / "ours") as server:
            port = server.sockets[0].getsockname()[1]
            settings = {"kind": "etcd", "endpoints": [f"127.0.0.1:{port}"], "prefix": "tls/", "timeout": "1s"}
            place = Place({**settings, "tls": True, "tls_ca": "ours.pem"}, tmp_path)
            async with place.store() as store:
                version = await store.put("a", {}, ABSENT)
                async with aclosing(store.watch("a", version - 1)) as watch:
                    assert (await anext(watch)).revision == version
            async with place.having(tls_ca="strangers.pem").store() as store:
                assert "certificate" in await fails(store.put("a", {}, version), StoreUnavailable)

    within(WAIT, main)


def _tls_in_front(member: EtcdMember, name: Path) -> Any:
    """Terminates TLS before etcd."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(name.with_suffix(".pem"), name.with_suffix(".key"))
    relay = Relay(target_of(member))
    return _Served(asyncio.start_server(relay._serve, "127.0.0.1", 0, ssl=context))


class _Served:
    def __init__(self, starting: Coroutine[Any, Any, asyncio.Server]) -> None:
        self._starting = starting

    async def __aenter__(self) -> asyncio.Server:
        self._server = await self._starting
        return self._server

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


def _certificate(folder: Path, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{name}.key").write_bytes(private)
