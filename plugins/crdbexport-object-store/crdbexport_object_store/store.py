"""The one door to obstore: the few operations that publishing needs, each with errors in the words of this package.

An error of obstore quotes requests and answers, credentials in the query of a URL among them. None of it is passed
on, neither in a message nor as the cause of one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from crdbexport import ConfigError, CrdbExportError, SinkError
from crdbexport.redaction import without_credentials
from crdbexport_object_store.options import ObjectStoreConfig, check_options, client_settings, store_settings
from crdbexport_object_store.troubles import explained, is_missing_object

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PARTS_AT_ONCE = 4
Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """An object's content, and the version of it that a conditional write can insist on."""

    data: bytes
    version: dict[str, str]
    modified: datetime


class Listed(NamedTuple):
    """An object as a listing tells it, by the clock of the store."""

    path: str
    modified: datetime


class Store:
    """A bucket below its prefix. `quick` bounds every operation to some seconds, for a look before a run.

    Raises ConfigError where the store cannot be as it is described, SinkRefusedError where it says no for good,
    SinkError where it may work later.
    """

    def __init__(self, config: ObjectStoreConfig, *, quick: bool = False) -> None:
        check_options(config)
        self.where = without_credentials(config.url).rstrip("/")
        self._part_bytes = config.part_bytes
        self._local = config.scheme == "file"
        self._store = self._asked("be opened", lambda: _opened(config, quick=quick), ConfigError)

    def put_file(self, path: str, file: Path) -> None:
        """Upload a file, in one piece or in parts. `path` must be nobody else's: a file that is there is this one."""
        import obstore

        def upload() -> None:
            obstore.put(self._store, path, file, chunk_size=self._part_bytes, max_concurrency=PARTS_AT_ONCE)

        try:
            self._asked(f"take {path}", upload)
        except SinkError:
            # The answer alone may have been lost; what appears in a bucket is whole.
            if not self._holds(path, file.stat().st_size):
                raise

    def put_if_unchanged(self, path: str, data: bytes, since: Found | None) -> None:
        """Write an object, unless it has changed `since` (None: unless it exists).

        Raises ChangedMeanwhileError, after which nothing was written.
        """
        import obstore

        mode: Any = "create" if since is None else since.version
        if since is not None and self._local:
            mode = "overwrite"  # Files know no conditional change.
        self._asked(f"take {path}", lambda: obstore.put(self._store, path, data, mode=mode, use_multipart=False))

    def put(self, path: str, data: bytes) -> None:
        """Write an object, whatever was there."""
        import obstore

        self._asked(f"take {path}", lambda: obstore.put(self._store, path, data, use_multipart=False))

    def get(self, path: str) -> Found | None:
        """An object, if it is there."""
        import obstore

        def download() -> Found | None:
            try:
                answer = obstore.get(self._store, path)
                told = {"e_tag": answer.meta["e_tag"], "version": answer.meta["version"]}
                version = {name: value for name, value in told.items() if value}
                return Found(bytes(answer.bytes()), version, answer.meta["last_modified"])
            except FileNotFoundError as error:
                if is_missing_object(error):
                    return None
                raise

        return self._asked(f"give {path}", download)

    def listed(self, directory: str, *, limit: int | None = None) -> list[Listed]:
        """The objects below `directory`, or the first ones."""
        import obstore

        def found() -> list[Listed]:
            pages = obstore.list(self._store, directory)
            return list(islice((Listed(each["path"], each["last_modified"]) for page in pages for each in page), limit))

        return self._asked(f"list {directory}", found)

    def delete(self, path: str) -> None:
        """Remove an object, if it is there."""
        import obstore

        def remove() -> None:
            try:
                obstore.delete(self._store, path)
            except FileNotFoundError as error:
                if not is_missing_object(error):
                    raise

        self._asked(f"delete {path}", remove)

    def delete_later_if_not_now(self, paths: list[str]) -> None:
        """Remove objects; what cannot be removed is logged, for a later run of the snapshot removes it."""
        for path in paths:
            try:
                self.delete(path)
            except CrdbExportError as error:
                log.warning("%s; the next run of this snapshot tries again", error)

    def _holds(self, path: str, size: int) -> bool:
        import obstore

        with suppress(CrdbExportError):
            return self._asked(f"tell of {path}", lambda: obstore.head(self._store, path))["size"] == size
        return False

    def _asked(self, doing: str, operation: Callable[[], Answer], default: type[CrdbExportError] = SinkError) -> Answer:
        from obstore.exceptions import BaseError

        try:
            return operation()
        except (BaseError, OSError, ValueError, NotImplementedError) as error:
            told = explained(error, self.where, doing, default)
        # Not while the error is handled: it would travel along.
        raise told


def _opened(config: ObjectStoreConfig, *, quick: bool) -> ObjectStore:
    from obstore.store import from_url

    if config.scheme == "file":
        return from_url(config.url, mkdir=True, automatic_cleanup=True)
    if config.scheme == "memory":
        return from_url(config.url)
    store: ObjectStore = from_url(config.url, config=store_settings(config), **client_settings(config, quick=quick))  # type: ignore[call-overload]
    return store
