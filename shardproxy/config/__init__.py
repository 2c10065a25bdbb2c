"""What the operator writes in `shardproxy.toml`: read once, checked whole, then immutable.

`load(path, environ)` reads a file, `parse(data)` takes the same thing as a mapping. Both return a `Config` or raise a
ConfigError that lists every problem. Nothing else in the package reads a file; passwords in files and environment
variables are looked up when they are asked for.
"""

from shardproxy.config.load import load, parse
from shardproxy.config.models import (
    AdminListen,
    BackendSettings,
    Config,
    KeyRangeSettings,
    KeyspaceSettings,
    ListenSettings,
    MysqlListen,
    ProxySettings,
    ShardSettings,
    StoreSettings,
    TableSettings,
    UserSettings,
)
from shardproxy.config.passwords import HashKind, PasswordHash
from shardproxy.config.units import Address

__all__ = [
    "Address",
    "AdminListen",
    "BackendSettings",
    "Config",
    "HashKind",
    "KeyRangeSettings",
    "KeyspaceSettings",
    "ListenSettings",
    "MysqlListen",
    "PasswordHash",
    "ProxySettings",
    "ShardSettings",
    "StoreSettings",
    "TableSettings",
    "UserSettings",
    "load",
    "parse",
]
