"""The manifest: what a run published into a directory. Its appearance under `_manifests/` is the commit."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import msgspec

from crdbexport.disk import write_durably
from crdbexport.errors import ConfigError
from crdbexport.records import Gap
from crdbexport.sinks.base import Outcome, Run

SCHEMA_VERSION = 1
# The last field, of the document as it would be without it. It is no part of `Manifest`, so that fields that a later
# version adds are covered too.
_CHECKSUM = re.compile(rb',\n  "checksum": "([0-9a-f]{64})"\n}\n\Z')
_END = b"\n}"


class ManifestFile(msgspec.Struct, frozen=True):
    """One published file. `path` is relative to the directory, with `/` on every system."""

    path: str
    stream: str
    rows: int
    size_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        # Files named here are renamed and removed: a forged manifest must not reach out of the tree.
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"the path {self.path!r} leaves the directory")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A committed run: its files, their rows by stream, and what could not be read."""

    schema_version: int = SCHEMA_VERSION
    cluster: str
    run_id: str
    logical_time: datetime
    extracted_at: datetime
    complete: bool
    sink: str
    rows: dict[str, int]
    files: tuple[ManifestFile, ...]
    gaps: tuple[Gap, ...] = ()

    def same_snapshot(self, other: Manifest) -> bool:
        """Whether a directory keeps only one of the two."""
        return self.cluster == other.cluster and self.logical_time == other.logical_time


def manifest_of(run: Run, outcome: Outcome, sink: str, files: tuple[ManifestFile, ...]) -> Manifest:
    """The manifest of a run that published `files`."""
    return Manifest(
        cluster=run.cluster,
        run_id=run.run_id,
        logical_time=run.logical_time.astimezone(UTC),
        extracted_at=run.extracted_at.astimezone(UTC),
        complete=outcome.complete,
        sink=sink,
        rows={file.stream: file.rows for file in files},
        files=files,
        gaps=outcome.gaps,
    )


class _Version(msgspec.Struct):
    schema_version: int


# Made while this is imported: two sinks that check their manifests at once would otherwise be the first to decode one
# in two threads, and msgspec 0.22 may crash the process when a type is met so.
_VERSION = msgspec.json.Decoder(_Version)
_MANIFEST = msgspec.json.Decoder(Manifest)


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`. Raises ConfigError when it is damaged, or of a newer schema version."""
    data = path.read_bytes()
    try:
        return decode_manifest(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def decode_manifest(data: bytes) -> Manifest:
    """The manifest that a file holds; errors are those of `read_manifest`, and do not name the file."""
    try:
        _compare_checksum(data)
        version = _VERSION.decode(data).schema_version
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"a newer crdbexport wrote this manifest (schema version {version}, known here: "
                f"{SCHEMA_VERSION}); update crdbexport, or publish to another directory"
            )
        return _MANIFEST.decode(data)
    except ValueError as error:
        raise ConfigError(
            f"the manifest is damaged ({error}); restore it, or remove it and the files of its run"
        ) from error


def _compare_checksum(data: bytes) -> None:
    if (found := _CHECKSUM.search(data)) and found[1] != _checksum(data[: found.start()] + _END):
        raise ValueError("its checksum does not match")


def _checksum(document: bytes) -> bytes:
    return hashlib.sha256(document).hexdigest().encode()


def lost_its_checksum(data: bytes) -> bool:
    """Whether a manifest that can be decoded has been changed so that its checksum is not recognised.

    Manifests of early versions have none, and no field that is unknown here.
    """
    if _CHECKSUM.search(data):
        return False
    try:
        fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except ValueError:
        return True
    return not fields.keys() <= set(Manifest.__struct_fields__)


def encode_manifest(manifest: Manifest) -> bytes:
    """The file that holds the manifest. Equal manifests give equal bytes."""
    document = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    return document.removesuffix(_END) + b',\n  "checksum": "%s"\n}\n' % _checksum(document)


def write_manifest(manifest: Manifest, path: Path, *, via: Path) -> None:
    """Let the manifest appear at `path`, whole and durable."""
    write_durably(encode_manifest(manifest), path, via=via)
