"""Documents of the map store as values: exact JSON and back, and names of their keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json, to_json

from shardproxy.errors import DocumentError

MAPS: Final = "map/"  # + keyspace: MapDocument
PROXIES: Final = "proxy/"  # + identity: Identity
ACKNOWLEDGEMENTS: Final = "ack/"  # + identity: Acknowledgement
ALIVE: Final = "alive/"  # + identity, under a lease: for people, and for how long somebody waits
LOADS: Final = "load/"  # + identity/keyspace, under a lease: Load
MOVES: Final = "move/"  # + move, see `move_key`: Workflow, also of moves that have ended

_Document = TypeVar("_Document", bound="Stored")


def move_key(ident: int) -> str:
    """The key of a move's workflow. Keys are not listed in the order of the moves: 10 comes before 2."""
    return f"{MOVES}{ident}"


class Stored(BaseModel):
    """A document. Immutable; it takes no value of another type, no unknown field, no infinite number."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def document(self) -> dict[str, object]:
        """The document as JSON has it; `read` gives an equal value back."""
        found: dict[str, object] = from_json(self.model_dump_json())
        return found

    @classmethod
    def read(cls: type[_Document], key: str, document: Mapping[str, object]) -> _Document:
        """The value of a document that was found under `key`. Raises DocumentError with every problem."""
        try:
            # Not the standard library's: a hash map is 50 kB, and every proxy reads it while writes wait.
            return cls.model_validate_json(to_json(document, inf_nan_mode="constants"))
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc'])) or 'whole'}: {e['msg']}" for e in error.errors(include_url=False)]
            raise DocumentError(
                f"map store: {key}: found no {cls.__name__} ({'; '.join(lines[:5])}); "
                "was it written by another version of shardproxy?"
            ) from error
