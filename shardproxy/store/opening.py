"""The store that the operator's file names."""

from __future__ import annotations

import ssl

from shardproxy.config import Config
from shardproxy.errors import ConfigError
from shardproxy.store.embedded import EmbeddedStore
from shardproxy.store.etcd import EtcdStore
from shardproxy.store.gateway import Gateway
from shardproxy.store.interface import MapStore


async def open_store(config: Config) -> MapStore:
    """The map store, open. Whether an etcd answers shows at the first request.

    Raises ConfigError for a password or certificate that cannot be had, StoreUnavailable for a file.
    """
    store = config.store
    if store.kind == "embedded":
        return await EmbeddedStore.open(config.resolve(store.path), store.timeout)
    scheme = "https" if store.tls else "http"
    endpoints = [f"{scheme}://{address}" for address in store.endpoints]
    return EtcdStore(Gateway(endpoints, store.timeout, _tls(config), config.store_login()), store.prefix)


def _tls(config: Config) -> ssl.SSLContext | None:
    store = config.store
    if not store.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=str(config.resolve(store.tls_ca)) if store.tls_ca else None)
        if store.tls_cert:
            context.load_cert_chain(config.resolve(store.tls_cert), config.resolve(store.tls_key))
    except OSError as error:
        raise ConfigError(
            f"{config.source}: store: certificates cannot be used ({error}); expected PEM files"
        ) from error
    return context
