"""File names for runs: injective, inside the tree, and read by every reader.

Clusters and run ids are free text. Readers skip files whose names start with `_` or `.`, expand globs, and
may take `=` for a partition key; so all but `[A-Za-z0-9_-]` is percent-encoded, and a leading `_` or `-` too, and the
first letter of what Windows takes for a device (`con`, `nul.x`). Names that differ in case alone stay as they are:
whoever finds files under the names of a run makes sure that they are that run's.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from hashlib import blake2b
from urllib.parse import unquote

MAX_PART_BYTES = 100
CUT_MARK = "~"
_DIGEST_BYTES = 8
_KEPT_BYTES = MAX_PART_BYTES - len(CUT_MARK) - 2 * _DIGEST_BYTES
_ESCAPED = re.compile(rb"[^A-Za-z0-9_-]|^[_-]|^(?=(?i:con|prn|aux|nul|(?:com|lpt)[0-9])\Z).")
_HALF_ESCAPE = re.compile(r"%[0-9A-F]?$")


def file_stem(cluster: str, run_id: str) -> str:
    """`<cluster>.<run_id>`, at most 201 bytes of ASCII; the dot between the two is the only one."""
    return f"{escaped(cluster)}.{escaped(run_id)}"


def snapshot_stem(cluster: str, logical_time: datetime) -> str:
    """`<cluster>.<logical time in UTC>`, to the microsecond: what all runs of a snapshot share."""
    digits = re.sub(r"\D", "", logical_time.astimezone(UTC).isoformat(timespec="microseconds")[:26])
    return f"{escaped(cluster)}.{digits[:8]}T{digits[8:]}Z"


def escaped(part: str) -> str:
    """`part` as a piece of a file name; what is empty, or longer than 100 bytes, ends in `~` and a digest."""
    # A command line that is not UTF-8 reaches Python as lone surrogates; their names must be unique as well.
    raw = part.encode("utf-8", "surrogatepass")
    name = _ESCAPED.sub(lambda found: b"%%%02X" % found[0][0], raw).decode("ascii")
    if name and len(name) <= MAX_PART_BYTES:
        return name
    prefix = _HALF_ESCAPE.sub("", name[:_KEPT_BYTES])
    return f"{prefix}{CUT_MARK}{blake2b(raw, digest_size=_DIGEST_BYTES).hexdigest()}"


def unescaped(name: str) -> str | None:
    """The part that `escaped` turned into `name`; None when it was cut."""
    return None if CUT_MARK in name else unquote(name, errors="surrogatepass")
