from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.mysql.constants import MAX_PAYLOAD
from shardproxy.protocol.mysql.framing import HEADER_LENGTH, PacketReader, packet, packet_count


def test_packet_header() -> None:
    assert packet(b"abc", 7) == b"\x03\x00\x00\x07abc"
    assert packet(b"", 256) == b"\x00\x00\x00\x00"
    assert packet(b"x" * 300, 255)[:4] == b"\x2c\x01\x00\xff"


@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("packets", [1, 2])
def test_split_payload_comes_back_whole(packets: int, extra: int) -> None:
    payload = bytes(packets * MAX_PAYLOAD + extra)
    wire = packet(payload, 254)
    count = packet_count(len(payload))
    assert count == packets + (extra >= 0)
    assert len(wire) == len(payload) + HEADER_LENGTH * count
    reader = PacketReader(limit=len(payload), next_seq=254)
    (seq, got), *rest = reader.feed(wire)
    assert got == payload
    assert not rest
    assert seq == (254 + count - 1) % 256
    assert reader.next_seq == (254 + count) % 256
    assert reader.buffered == 0


@given(st.lists(st.binary(max_size=50), max_size=10), st.integers(1, 9), st.integers(0, 255))
def test_any_cut_gives_the_same_payloads(payloads: list[bytes], step: int, first: int) -> None:
    wire = b"".join(packet(payload, first + index) for index, payload in enumerate(payloads))
    reader = PacketReader(limit=50, next_seq=first)
    got = []
    for start in range(0, len(wire), step):
        got += reader.feed(wire[start : start + step])
    assert got == [((first + index) % 256, payload) for index, payload in enumerate(payloads)]


def test_wrong_sequence_is_terminal() -> None:
    reader = PacketReader(limit=10, next_seq=1)
    with pytest.raises(RemoteProtocolError, match="sequence id 2, expected 1"):
        reader.feed(packet(b"a", 2))
    with pytest.raises(RemoteProtocolError, match="sequence id 2"):
        reader.feed(packet(b"a", 1))
    with pytest.raises(RemoteProtocolError, match="sequence id 2"):
        reader.take()
    assert reader.buffered == 0


def test_wrong_sequence_in_a_continuation() -> None:
    reader = PacketReader(limit=1 << 25)
    assert reader.feed(b"\xff\xff\xff\x00" + bytes(MAX_PAYLOAD)) == []
    with pytest.raises(RemoteProtocolError, match="sequence id 0, expected 1"):
        reader.feed(packet(b"", 0))


def test_oversized_length_is_refused_by_its_header_alone() -> None:
    reader = PacketReader(limit=1000)
    assert reader.feed(b"\xe9\x03\x00") == []
    with pytest.raises(RemoteProtocolError, match="1001 bytes is over the limit of 1000"):
        reader.feed(b"\x00")
    assert PacketReader(limit=1000).feed(packet(bytes(1000), 0)) == [(0, bytes(1000))]


def test_limit_counts_the_joined_payload() -> None:
    reader = PacketReader(limit=MAX_PAYLOAD + 5)
    reader.feed(b"\xff\xff\xff\x00" + bytes(MAX_PAYLOAD))
    assert reader.buffered == MAX_PAYLOAD
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        reader.feed(b"\x06\x00\x00\x01")


def test_release_hands_over_what_follows_a_packet() -> None:
    reader = PacketReader(limit=100, next_seq=1)
    reader.append(packet(b"ssl request", 1) + b"\x16\x03\x01 client hello")
    assert reader.take() == (1, b"ssl request")
    assert reader.release() == b"\x16\x03\x01 client hello"
    assert reader.buffered == 0
    assert reader.feed(packet(b"later", 2)) == [(2, b"later")]


def test_a_new_command_resets_the_sequence() -> None:
    reader = PacketReader(limit=100)
    reader.feed(packet(b"one", 0))
    reader.next_seq = 0
    assert reader.feed(packet(b"two", 0)) == [(0, b"two")]
