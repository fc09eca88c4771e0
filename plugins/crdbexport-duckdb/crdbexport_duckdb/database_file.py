"""The DuckDB file: whether it can be one, opening it, and what DuckDB's errors mean for a run."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from crdbexport import ConfigError, SinkError, SinkRefusedError

MEMORY_LIMIT = "256MB"
POLL_SECONDS = 0.1


def check_place(path: Path) -> None:
    """Refuse a path at which no file can be written."""
    if path.is_dir():
        raise ConfigError(f"{path} is a directory; name a DuckDB file, such as {path / 'cluster.duckdb'}")
    nearest = path if path.exists() else next(parent for parent in path.parents if parent.exists())
    if nearest != path and not nearest.is_dir():
        raise ConfigError(f"{path} cannot be created: {nearest} is not a directory")
    if not os.access(nearest, os.W_OK):
        raise ConfigError(f"{path} cannot be written: no permission to write {nearest}")
    directory = nearest if nearest.is_dir() else nearest.parent
    try:
        # Permissions do not tell everything: /proc takes no files from anybody.
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {directory}: {error.strerror}; name another place") from error


def connect(spill: Path) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that spills to a directory and never fetches an extension."""
    return duckdb.connect(
        ":memory:",
        config={
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": str(spill),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )


@contextmanager
def attached(connection: duckdb.DuckDBPyConnection, path: Path, wait_seconds: float) -> Iterator[None]:
    """Hold the file as the catalog `target`, for this connection alone; waits for whoever has it open."""
    deadline = time.monotonic() + wait_seconds
    while (holder := _attach(connection, path)) is not None:
        if time.monotonic() >= deadline:
            raise SinkError(f"{path} is open in {holder}; close it there, then run the same command again")
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        connection.execute("DETACH target")


def _attach(connection: duckdb.DuckDBPyConnection, path: Path) -> str | None:
    """Attach the file; answers who has it open, if that is why it failed."""
    literal = "'" + str(path).replace("'", "''") + "'"
    try:
        connection.execute(f"ATTACH {literal} AS target (TYPE duckdb)")
    except duckdb.Error as error:
        text = str(error)
        if "Could not set lock" in text:
            pid = re.search(r"PID \d+", text)
            return f"another process ({pid[0]})" if pid else "another process"
        if "Unique file handle conflict" in text:
            return "this process"
        if "not a valid DuckDB database" in text:
            raise ConfigError(f"{path} is not a DuckDB database; name another file") from error
        raise
    return None


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A COMMIT that failed has rolled back already.
        with suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        raise


def is_empty(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the attached file holds no table."""
    tables = connection.execute("SELECT count(*) FROM duckdb_tables() WHERE database_name = 'target'")
    return tables.fetchall() == [(0,)]


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Tell what DuckDB refuses for good from what may work later, such as a full disk."""
    try:
        yield
    except (duckdb.ProgrammingError, duckdb.IntegrityError, duckdb.DataError) as error:
        raise SinkRefusedError(f"{path} does not take the records: {_first_line(error)}") from error
    except (duckdb.Error, OSError) as error:
        raise SinkError(f"{path} cannot be written: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
