"""What a check of a published directory tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

FindingKind = Literal["missing", "altered", "unfit", "manifest", "orphan", "interrupted", "unreadable"]


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it was published. `path` is relative to the directory.

    `kind` is `missing` or `altered` (a file is not there, or holds other bytes), `unfit` (its bytes are the published
    ones, yet do not read back as the manifest says), `manifest` (damaged, or contradicts itself), `orphan` (no manifest
    names the file), `interrupted` (a process died while it published or removed a run), `unreadable` (the system could
    not read it now).
    """

    path: str
    kind: FindingKind
    message: str
    """What is wrong, and what to do."""


@dataclass
class Tally:
    """How far a check has come. `runs` of `runs_listed` are done; the rest counts what was read and found whole."""

    runs_listed: int = 0
    runs: int = 0
    files: int = 0
    rows: int = 0
    size_bytes: int = 0


class Verification(msgspec.Struct, frozen=True):
    """What a check of a directory found, and how much it read and found whole."""

    directory: str
    runs: int
    files: int
    rows: int
    size_bytes: int
    findings: tuple[Finding, ...]
