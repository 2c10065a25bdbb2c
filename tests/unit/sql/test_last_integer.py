"""The integer at the end of a text: found where the scanner finds its literal, and only there."""

from hypothesis import example, given
from hypothesis import strategies as st

from shardproxy.protocol.mysql.framing import packet
from shardproxy.sql.digest import scan
from shardproxy.sql.last_integer import MOST, last_integer
from shardproxy.sql.modes import SqlModes

PIECES = (
    b"SELECT ", b"c ", b"t1", b"x'41'",
    b"'a'", b"'", b'"b"', b'"', b"`q 5`", b"`", b"a.b", b".", b"@v", b"@", b"=", b"id=",
    b" ", b"-- ", b"-", b"#", b"/* c */", b"/*", b"/*+ h", b"/*! 1", b"*/", b"\n", b"\\", b"?", b"5", b"0x1f", b"1.5e3",
    b"(", b"id IN (", b"\xc3\xa4", b"$", b"_", b"e", b"/", b"+",
)  # fmt: skip
MODES = st.builds(SqlModes, ansi_quotes=st.booleans(), no_backslash_escapes=st.booleans())
HEADS = st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join)
LITERALS = st.sampled_from((b"7", b"4711", b"'s'", b"?", b"0x1f", b"1.5", b"'", b"12 ", b'"d"'))


def wire(text: bytes) -> bytes:
    return packet(b"\x03" + text, 0)


def test_finds_start_and_value() -> None:
    sent = wire(b"SELECT c FROM t1 WHERE id=5012")
    assert last_integer(sent) == (len(sent) - 4, 5012)
    sent = wire(b"SELECT 1 WHERE id = 007")
    assert last_integer(sent) == (len(sent) - 3, 7)


def test_finds_none_where_the_text_ends_otherwise() -> None:
    for text in (b"", b"5", b"SELECT c", b"id=5 ", b"id=x5", b"id=1.5", b"id=@5", b"id=\xc3\xa45", b"id=$5", b"id=5;"):
        assert last_integer(wire(text)) == (0, 0)


def test_finds_none_longer_than_a_machine_word_holds() -> None:
    assert last_integer(wire(b"id=" + b"9" * MOST))[1] == 10**MOST - 1
    assert last_integer(wire(b"id=" + b"9" * (MOST + 1))) == (0, 0)


@given(HEADS, LITERALS, st.integers(0, 10**MOST - 1), MODES)
@example(b"SELECT /* open ", b"?", 5, SqlModes())
@example(b"SELECT `q 5` FROM t1 WHERE id=", b"'s'", 5, SqlModes())
def test_a_text_has_the_digest_that_its_beginning_tells(
    head: bytes, literal: bytes, number: int, modes: SqlModes
) -> None:
    """For every digest with one literal, at its end, whatever that was when the digest was made."""
    digest, literals = scan(head + literal, modes)
    if len(literals) != 1 or digest.count(b"?") != 1 or not digest.endswith(b"?"):
        return
    text = digest[:-1] + b"%d" % number
    sent = wire(text)
    at, value = last_integer(sent)
    if at and sent[5:at] + b"?" == digest:
        assert scan(text, modes) == (digest, [b"%d" % number])
        assert value == number


@given(st.binary(max_size=10), st.text("0123456789", min_size=1, max_size=MOST + 2))
def test_reads_any_bytes(before: bytes, digits: str) -> None:
    sent = wire(before + digits.encode())
    at, value = last_integer(sent)
    assert not at or int(sent[at:]) == value
