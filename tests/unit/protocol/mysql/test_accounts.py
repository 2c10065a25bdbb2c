from __future__ import annotations

import pytest

from shardproxy.protocol.mysql.accounts import Account, FastAuthCache, decoy_account
from shardproxy.protocol.mysql.passwords import NativeHash, Sha2Hash, make_native_hash, make_sha2_hash, sha2_token

NONCE = bytes(range(1, 21))
PASSWORD = b"s3same"
SHA2 = make_sha2_hash(PASSWORD, b"0123456789abcdefghij", 1000)
PLAIN = Account("plain", plaintext=PASSWORD)
NATIVE = Account.from_hash("native", make_native_hash(PASSWORD))
HASHED = Account.from_hash("hashed", SHA2)


@pytest.mark.parametrize("account", [PLAIN, NATIVE, HASHED])
def test_every_form_checks_a_password(account: Account) -> None:
    assert account.matches(PASSWORD)
    assert not account.matches(b"")
    assert not account.matches(PASSWORD + b"!")
    assert not account.passwordless


def test_an_account_must_say_that_it_has_no_password() -> None:
    with pytest.raises(ValueError, match="'nobody' has no stored password"):
        Account("nobody")
    with pytest.raises(ValueError, match="not a password hash"):
        Account.from_hash("nobody", "")
    open_account = Account("open", plaintext=b"")
    assert open_account.passwordless
    assert open_account.matches(b"")


def test_native_stage2_only_where_it_is_known() -> None:
    assert PLAIN.native_stage2 == NATIVE.native_stage2 == NativeHash.of(PASSWORD).stage2
    assert HASHED.native_stage2 is None


def test_secrets_do_not_show_in_repr() -> None:
    for account in (PLAIN, NATIVE, HASHED):
        assert "s3same" not in repr(account)
        assert repr(account) == f"Account(user={account.user!r}, decoy=False)"


def test_identity_follows_every_stored_form() -> None:
    assert isinstance(HASHED.sha2, Sha2Hash)
    identities = {
        PLAIN.identity(),
        NATIVE.identity(),
        HASHED.identity(),
        Account("plain", plaintext=PASSWORD + b"!").identity(),
        Account("plain", plaintext=b"").identity(),
        Account("both", plaintext=PASSWORD, native=NATIVE.native).identity(),
        Account("three", plaintext=PASSWORD, native=NATIVE.native, sha2=HASHED.sha2).identity(),
    }
    assert len(identities) == 7
    assert Account("again", plaintext=PASSWORD).identity() == PLAIN.identity()


def test_decoys_have_the_forms_of_the_accounts() -> None:
    for like in (PLAIN, NATIVE, HASHED):
        decoy = decoy_account("ghost", [like], b"key")
        assert decoy.decoy
        assert decoy.user == "ghost"
        assert (decoy.plaintext is None) == (like.plaintext is None)
        assert (decoy.native is None) == (like.native is None)
        assert (decoy.sha2 is None) == (like.sha2 is None)
        assert not decoy.matches(PASSWORD)
        assert not decoy.matches(decoy.plaintext or b"")
    decoy_hash = decoy_account("ghost", [HASHED], b"key").sha2
    assert decoy_hash is not None and HASHED.sha2 is not None
    assert decoy_hash.rounds == HASHED.sha2.rounds


def test_decoys_are_stable_and_mixed() -> None:
    accounts = [PLAIN, NATIVE, HASHED]
    decoys = [decoy_account(f"ghost{index}", accounts, b"key") for index in range(100)]
    assert decoys == [decoy_account(f"ghost{index}", accounts, b"key") for index in range(100)]
    assert decoys != [decoy_account(f"ghost{index}", accounts, b"other key") for index in range(100)]
    assert {(d.plaintext is None, d.native is None, d.sha2 is None) for d in decoys} == {
        (False, True, True),
        (True, False, True),
        (True, True, False),
    }


def test_decoys_without_an_example_need_the_full_exchange() -> None:
    for accounts in ([], [Account("open", plaintext=b"")]):
        decoy = decoy_account("ghost", accounts, b"key")
        assert decoy.sha2 is not None and decoy.native_stage2 is None
        assert not decoy.passwordless


def test_cache_holds_for_the_stored_password_it_was_filled_under() -> None:
    cache = FastAuthCache()
    token = sha2_token(PASSWORD, NONCE)
    assert not cache.accepts(HASHED, token, NONCE)
    cache.fill(HASHED, PASSWORD)
    assert cache.accepts(HASHED, token, NONCE)
    assert not cache.accepts(HASHED, token, NONCE[::-1])
    assert not cache.accepts(HASHED, sha2_token(b"wrong", NONCE), NONCE)
    assert not cache.accepts(NATIVE, token, NONCE)
    changed = Account.from_hash("hashed", make_sha2_hash(b"new", b"0123456789abcdefghij", 1000))
    assert not cache.accepts(changed, token, NONCE)
    cache.fill(changed, b"new")
    assert not cache.accepts(HASHED, token, NONCE)
    assert len(cache) == 1
    cache.forget("hashed")
    cache.forget("hashed")
    assert len(cache) == 0
    assert not cache.accepts(changed, sha2_token(b"new", NONCE), NONCE)
