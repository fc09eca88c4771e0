"""The transform `mask`: hides names behind keyed hashes, and removes what a hash cannot hide."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from crdbexport.errors import ConfigError, shown
from crdbexport.records import ENVELOPE, STREAMS, Field
from crdbexport.transforms.base import Transform, TransformConfig

if TYPE_CHECKING:
    from crdbexport.sinks.base import Batch

MIN_KEY_BYTES = 16
MAX_KEY_BYTES = blake2b.MAX_KEY_SIZE
TOKEN_BYTES = 16
PERSONALIZATION = b"crdbexport.mask"

NEVER_MASKED = frozenset(field.name for field in ENVELOPE) | {"details"}


class Mask(Transform):
    """Replaces the values of chosen fields: strings by keyed hashes, in lists one by one, all else by null.

    The token of a name is `blake2b(name, key=key, digest_size=16, person=b"crdbexport.mask")` in hex, over
    UTF-8. It depends on the key and the name alone: a name has the same token in every field, stream, run and
    cluster, so that joins still hold, and whoever has the key finds the token of a name by hashing it. Null
    stays null. Under another key everything is new.
    """

    class Config(TransformConfig, frozen=True, kw_only=True):
        fields: tuple[str, ...]
        """Names of fields, each masked in every stream that has it."""
        key_env: str = "CRDBEXPORT_MASK_KEY"
        """The environment variable that holds the key, 16 to 64 bytes."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if not config.fields:
            raise ConfigError(f"mask: name at least one field; it can mask {', '.join(sorted(_maskable()))}")
        for name in config.fields:
            _check_maskable(name)
        self._fields = frozenset(config.fields)
        # A keyed hash object, and not the key, so that nothing that prints this transform can print the key.
        self._keyed = blake2b(key=_key(config.key_env), digest_size=TOKEN_BYTES, person=PERSONALIZATION)

    def apply(self, batch: Batch) -> pa.RecordBatch:
        schema = batch.data.schema
        columns = [
            self._masked(column) if field.name in self._fields else column
            for field, column in zip(schema, batch.data.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def secrets(self) -> Iterable[str]:
        return (os.environ.get(self.config.key_env, ""),)

    def rename(self, field: str, name: str) -> str:
        return self._token(name) if field in self._fields else name

    def _masked(self, column: pa.Array) -> pa.Array:
        if column.type == pa.string():
            encoded = column.dictionary_encode()
            tokens = [self._token(name) for name in encoded.dictionary.to_pylist()]
            return pc.take(pa.array(tokens, pa.string()), encoded.indices)
        if column.type == pa.list_(pa.string()):
            return pa.array([self._tokens(names) for names in column.to_pylist()], column.type)
        return pa.nulls(len(column), column.type)

    def _tokens(self, names: list[str | None] | None) -> list[str | None] | None:
        return names if names is None else [name if name is None else self._token(name) for name in names]

    def _token(self, name: str) -> str:
        keyed = self._keyed.copy()
        keyed.update(name.encode())
        return keyed.hexdigest()


def _key(variable: str) -> bytes:
    """The key in the environment variable; the error tells what is wrong with it, never what it is."""
    key = os.fsencode(os.environ.get(variable, ""))
    if MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        return key
    found = f"holds {len(key)} bytes" if key else "is not set"
    raise ConfigError(
        f"mask: {variable} {found}; a key has {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes. Make one with "
        f'export {variable}="$(openssl rand -hex 32)" and keep it: another key gives other tokens'
    )


def _check_maskable(name: str) -> None:
    if name in _maskable():
        return
    near = difflib.get_close_matches(name, _maskable(), n=1)
    advice = f"did you mean {shown(near[0])}?" if near else f"it can mask {', '.join(sorted(_maskable()))}"
    if name in NEVER_MASKED:
        raise ConfigError(f"mask: {shown(name)} tells what a record is; leave it out of `fields`")
    if any(field.name == name for stream in STREAMS.values() for field in stream.own_fields):
        raise ConfigError(f"mask: {shown(name)} is neither a string nor nullable; {advice}")
    raise ConfigError(f"mask: no stream has a field {shown(name)}; {advice}")


def _maskable() -> set[str]:
    """The names of the fields that can be masked in every stream that has them."""
    fields = [field for stream in STREAMS.values() for field in stream.own_fields]
    blocked = {field.name for field in fields if not _can_be_hidden(field)} | NEVER_MASKED
    return {field.name for field in fields} - blocked


def _can_be_hidden(field: Field) -> bool:
    return field.nullable or field.type in {"string", "list<string>"}
