"""What stands on disk after an attempt: the published trees, and whatever is wrong with them."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from crdbexport.records import STREAMS
from crdbexport.report import RunReport
from crdbexport.sinks.lake import Lake
from crdbexport.sinks.manifest import read_manifest
from crdbexport.sinks.recovery import finish_interrupted

LAKES = ("lake", "lines")
# What SQLite makes of the same.
SQLITE_SAYS = ("database or disk is full", "disk I/O error", "unable to open database file")
MEASURE = "state/clusters/c1.json"
CAUSES = tuple(os.strerror(each) for each in (errno.ENOSPC, errno.EIO, errno.EMFILE)) + SQLITE_SAYS
Files = Mapping[str, str]
# Of two sinks: how many may have published where a run ends with this code.
PUBLISHED_BY_CODE = {0: 2, 3: 1, 5: 0}


def digests(root: Path) -> dict[str, str]:
    """All files below, by path, with the SHA-256 of their bytes."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def published(place: Path) -> dict[str, str]:
    """What both sinks have published, manifests included, and what the next runs are measured by."""
    kept = (*(f"{lake}/" for lake in LAKES), MEASURE)
    return {
        path: digest
        for path, digest in digests(place).items()
        if path.startswith(kept) and not path.startswith(tuple(f"{lake}/_staging/" for lake in LAKES))
    }


def in_streams(tree: Files, lake: str) -> dict[str, str]:
    """The files of one lake that readers of its stream directories see."""
    prefix = f"{lake}/"
    return {path: digest for path, digest in tree.items() if path.startswith(prefix) and "/_" not in path}


def partial_views(place: Path, whole: Iterable[Files]) -> list[str]:
    """What a reader could see that is not whole; `whole` are the published trees that may stand here."""
    trees = list(whole)
    return [trouble for lake in LAKES for trouble in _partial_in(place, lake, trees)]


def _partial_in(place: Path, lake: str, trees: list[Files]) -> list[str]:
    shown = in_streams({f"{lake}/{path}": digest for path, digest in digests(place / lake).items()}, lake)
    known = {item for tree in trees for item in in_streams(tree, lake).items()}
    named = _named(place, lake, f"{lake}/_manifests/*.json")
    unfinished = _named(place, lake, f"{lake}/_staging/*/prepared.json")
    removed = _named(place, lake, f"{lake}/_staging/*/superseded.*.json")
    troubles = [f"{path} is visible and not whole" for path, digest in shown.items() if (path, digest) not in known]
    troubles += [f"{path} is named by a manifest, and not there" for path, _ in sorted(named.items() - shown.items())]
    explained = named.keys() | unfinished.keys() | removed.keys()
    troubles += [f"{path} is named by no manifest" for path in sorted(shown.keys() - explained)]
    if any(in_streams(tree, lake) for tree in trees[:1]):
        troubles += [f"{lake}/{stream} shows nothing" for stream in STREAMS if not _any_below(shown, lake, stream)]
    return troubles


def _named(place: Path, lake: str, pattern: str) -> dict[str, str]:
    """The files that these manifests name."""
    manifests = (read_manifest(path) for path in place.glob(pattern))
    return {f"{lake}/{file.path}": file.sha256 for manifest in manifests for file in manifest.files}


def _any_below(shown: Files, lake: str, stream: str) -> bool:
    return any(path.startswith(f"{lake}/{stream}/") for path in shown)


def litter(place: Path, run_id: str = "r1") -> list[str]:
    """What a finished run should not leave behind."""
    staged = [path for lake in LAKES for path in (place / lake / "_staging").rglob("*") if path.name != "_commit.lock"]
    state = place / "state/runs" / f"c1.{run_id}"
    kept = [path for path in state.rglob("*") if path.name not in ("lock", "journal.db")]
    return [f"{path.relative_to(place)} is left behind" for path in (*staged, *kept)]


def compared(told: Mapping[str, object], expected: Mapping[str, object], but_for: str = "") -> list[str]:
    """How the two differ."""
    names = sorted((told.keys() | expected.keys()) - {but_for})
    return [f"{name} is not as without interruption" for name in names if told.get(name) != expected.get(name)]


def account(place: Path) -> dict[str, object]:
    """The report of the last attempt, but for what an interruption may change: times, requests, places."""
    report = msgspec.json.decode((place / "report.json").read_bytes(), type=RunReport)
    sinks = {each.name: (each.status, each.streams, each.bytes, len(each.artifacts)) for each in report.sinks}
    return {
        "the exit code": report.exit_code,
        "the status": report.status,
        "the streams": report.streams,
        "the objects": report.objects,
        "the gaps": report.gaps,
        "the sinks": sinks,
        "the sums": sums(report),
    }


def sums(report: RunReport) -> list[str]:
    """Where the report does not add up."""
    wrong = []
    for sink in report.sinks:
        for name, counts in report.streams.items():
            told = sink.streams[name]
            if counts.extracted != counts.filtered + told.delivered + told.dead_lettered + told.undelivered:
                wrong.append(f"{name} in {sink.name}")
    if report.objects.details_wanted != report.objects.details_fetched + len(report.gaps):
        wrong.append("details")
    return wrong


def told_as_it_stands(place: Path, code: int) -> list[str]:
    """Where the exit code of an attempt that a disk failed says other than what is published, or nothing is said."""
    committed = sum((place / lake / "_manifests/c1.r1.json").exists() for lake in LAKES)
    said = _said(place)
    if code not in PUBLISHED_BY_CODE:
        return [f"it ended with {code}: {said[-400:]}"]
    # A manifest that appeared, and whose directory then could not be synced, is not told as committed.
    in_doubt = sum(f"failed: {place / lake / '_manifests'}: " in said for lake in LAKES)
    if not PUBLISHED_BY_CODE[code] <= committed <= PUBLISHED_BY_CODE[code] + in_doubt:
        return [f"it ended with {code}, and {committed} sinks have published: {said[-400:]}"]
    return [] if code == 0 or any(cause in said for cause in CAUSES) else [f"it does not say why: {said[-400:]}"]


def _said(place: Path) -> str:
    """What an attempt said, in its report or in its log, or tried to say where the log's own disk failed."""
    told = [path.read_text(errors="replace") for path in (place / "said", place / "report.json") if path.exists()]
    if (place / "trace").exists():
        lines = (place / "trace").read_text(errors="replace").splitlines()
        told += [line for line in lines if line.partition(", ")[0].endswith(f"{place}/said>")]
    return "\n".join(told)


def fault_struck(place: Path) -> bool:
    """Whether the fault that was to befall the run did."""
    trace = place / "trace"
    return "fails now: " in (place / "said").read_text() or (trace.exists() and "(INJECTED)" in trace.read_text())


def see_to_what_was_put_off(place: Path) -> str:
    """Do what the next run to the directories was said to do; the file that was said to stay as it was."""
    said = (place / "said").read_text(errors="replace")
    if "the next run to this directory" in said:
        for root in (place / lake for lake in LAKES):
            with Lake(root).locked():
                finish_interrupted(Lake(root))
    return MEASURE if "later runs are not compared" in said else ""
