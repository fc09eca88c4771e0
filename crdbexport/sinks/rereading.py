"""Reading a published file again, and comparing it with what its manifest tells of it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from functools import partial
from io import BufferedReader
from pathlib import PurePosixPath
from typing import BinaryIO

from crdbexport.errors import shown
from crdbexport.file_names import file_stem
from crdbexport.records import STREAMS, Stream
from crdbexport.sinks import jsonl, parquet
from crdbexport.sinks.manifest import Manifest, ManifestFile

# Copies of what was published to a bucket tell the attempts at a run apart.
_ATTEMPT = re.compile(r"\A\.[0-9a-f]{16}(?=\.)")
_READERS: dict[tuple[str, str], Callable[[BinaryIO, Stream], int]] = {
    ("parquet", ".parquet"): parquet.checked_rows,
    **{
        ("jsonl", suffix): partial(jsonl.checked_rows, compression=compression)
        for compression, suffix in jsonl.SUFFIXES.items()
    },
}


def difference(opened: BufferedReader, file: ManifestFile) -> str:
    """How the bytes differ from those that were published; empty when they do not."""
    size = os.fstat(opened.fileno()).st_size
    if size != file.size_bytes:
        return f"has {size:,} bytes where its manifest tells {file.size_bytes:,}"
    if hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
        return "its SHA-256 is not the one that its manifest tells"
    return ""


def rows_read_back(opened: BinaryIO, manifest: Manifest, file: ManifestFile) -> int:
    """The rows of a file, read back. Raises ValueError where they are not those that its manifest tells."""
    suffix = PurePosixPath(file.path).name.removeprefix(file_stem(manifest.cluster, manifest.run_id))
    suffix = _ATTEMPT.sub("", suffix)
    reader, stream = _READERS.get((manifest.sink, suffix)), STREAMS.get(file.stream)
    if reader is None or stream is None:
        raise ValueError(f"stream {shown(file.stream)} of a {shown(manifest.sink)} sink is not known here")
    rows = reader(opened, stream)
    if rows != file.rows:
        raise ValueError(f"holds {rows:,} rows where its manifest tells {file.rows:,}")
    return rows
