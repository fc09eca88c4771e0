"""The journal of a run: one SQLite file that says who the run is, what was read, and who has it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from crdbexport.disk import private_file, storage_error, sync
from crdbexport.errors import ConfigError, StorageError

FORMAT_VERSION = 2
APPLICATION_ID = 0x63726462
T = TypeVar("T")

TABLES = f"""
PRAGMA journal_mode = WAL;
BEGIN IMMEDIATE;
CREATE TABLE documents (name TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE sinks (name TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT_VERSION};
COMMIT;
"""


class Journal:
    """May be used from any thread. Raises `StorageError` where the disk does not take, or give, what is written.

    What was kept survives the death of the process and a power cut.
    """

    def __init__(self, path: Path, *, make: bool = True) -> None:
        """Without `make`, a journal that is not there yet is not made; `made` tells whether there is one to read."""
        self.path = path
        self._lock = threading.Lock()
        with self._told():
            if make and not path.exists():
                private_file(path, append=True).close()
                sync(path.parent)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._make_ready(make=make)
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        with self._lock, self._told():
            self._db.close()

    def document(self, name: str, shape: type[T]) -> T | None:
        """The document of this name, if there is one."""
        return self._read("SELECT body FROM documents WHERE name = ?", name, shape)

    def keep_document(self, name: str, value: Any, *, instead_of: str | None = None) -> None:
        """Put the document in the place of the one of this name, and of another, which goes with it."""
        with self._durably():
            self._db.execute("INSERT OR REPLACE INTO documents VALUES (?, ?)", (name, msgspec.json.encode(value)))
            if instead_of is not None:
                self._db.execute("DELETE FROM documents WHERE name = ?", (instead_of,))

    def sinks(self, shape: type[T]) -> dict[str, T]:
        """What is known of each sink, by its name."""
        with self._lock, self._told():
            rows = self._db.execute("SELECT name, body FROM sinks ORDER BY rowid").fetchall()
        return {name: self._decoded(body, shape) for name, body in rows}

    def keep_sink(self, name: str, value: Any) -> None:
        with self._durably():
            self._db.execute("INSERT OR REPLACE INTO sinks VALUES (?, ?)", (name, msgspec.json.encode(value)))

    def _make_ready(self, *, make: bool) -> None:
        # A process may have died between making the file and filling it.
        self.made = bool(self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        if make and not self.made:
            self._db.executescript(TABLES)
            self.made = True
        if self.made:
            self._check_format()
            self._db.execute("PRAGMA synchronous = FULL")

    def _check_format(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        ours = self._db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        if not ours or version != FORMAT_VERSION:
            raise ConfigError(
                f"{self.path}: is the journal of another version of crdbexport (format {version}, known here: "
                f"{FORMAT_VERSION}); finish the run with that version, or give another --run-id"
            )

    def _read(self, query: str, name: str, shape: type[T]) -> T | None:
        with self._lock, self._told():
            row = self._db.execute(query, (name,)).fetchone()
        return self._decoded(row[0], shape) if row else None

    def _decoded(self, body: bytes, shape: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=shape)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._damaged(error) from error

    @contextmanager
    def _durably(self) -> Iterator[None]:
        """One transaction that has survived a power cut when it is over."""
        with self._lock, self._told(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:  # The latter: closed meanwhile.
            raise StorageError(f"{self.path}: {error}; free space or mend that, then run the same command") from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error
        except OSError as error:
            raise storage_error(self.path, error) from error

    def _damaged(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"{self.path}: damaged, or of another version of crdbexport ({error}); give another --run-id, or delete "
            f"{self.path.parent}"
        )
