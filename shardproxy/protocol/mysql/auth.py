"""Authentication: the public names, each at home in a module of its own idea."""

from __future__ import annotations

from shardproxy.protocol.mysql.accounts import Account, FastAuthCache, decoy_account
from shardproxy.protocol.mysql.client_auth import ClientAuth
from shardproxy.protocol.mysql.passwords import (
    NativeHash,
    Sha2Hash,
    make_native_hash,
    make_sha2_hash,
    native_token,
    parse_stored_hash,
    sha2_token,
    sha256_crypt,
    verify_native,
    verify_sha2_fast,
    xor_password,
)
from shardproxy.protocol.mysql.rsa_exchange import RsaKey, encrypt_password
from shardproxy.protocol.mysql.server_auth import MAX_AUTH_PAYLOAD, Accepted, Action, Rejected, Send, ServerAuth

__all__ = [
    "MAX_AUTH_PAYLOAD",
    "Accepted",
    "Account",
    "Action",
    "ClientAuth",
    "FastAuthCache",
    "NativeHash",
    "Rejected",
    "RsaKey",
    "Send",
    "ServerAuth",
    "Sha2Hash",
    "decoy_account",
    "encrypt_password",
    "make_native_hash",
    "make_sha2_hash",
    "native_token",
    "parse_stored_hash",
    "sha2_token",
    "sha256_crypt",
    "verify_native",
    "verify_sha2_fast",
    "xor_password",
]
