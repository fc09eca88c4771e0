"""crdbexport with its CPU time told, `python -m tests.benchmarks.profiled FILE [--profile THREAD] -- ARGUMENT...`.

Without `--profile` it costs nothing that could be measured: each thread reads its own clock once. What no Python thread
has used up belongs to threads of extensions. With it, cProfile watches that one thread, and the Python functions in it
weigh more than they do otherwise.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import crdbexport

PACKAGE = Path(crdbexport.__file__).parent
MOST_FUNCTIONS = 20

Seconds: TypeAlias = defaultdict[str, float]


def count_threads(spent: Seconds, profiled: str | None, profiler: cProfile.Profile) -> None:
    """Let every thread that is started from now on add its CPU seconds to `spent` when it ends."""
    run: Callable[[threading.Thread], None] = threading.Thread.run

    def counted(thread: threading.Thread) -> None:
        try:
            profiler.runcall(run, thread) if thread.name == profiled else run(thread)
        finally:
            spent[thread.name] += time.thread_time()

    threading.Thread.run = counted  # type: ignore[method-assign, assignment]


def module_of(file: str) -> str:
    """The part of the program that a source file belongs to: a module of the package, or a distribution."""
    if "importlib" in file:
        return "imports"
    path = Path(file)
    if path.is_relative_to(PACKAGE):
        return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for parent in ("site-packages", f"python{sys.version_info.major}.{sys.version_info.minor}"):
        if parent in path.parts:
            rest = path.parts[path.parts.index(parent) + 1 :]
            return rest[0].removesuffix(".py") if rest[0] != "site-packages" else rest[1].removesuffix(".py")
    return file.strip("<>")


def by_module(stats: dict[Any, Any]) -> dict[str, float]:
    """Seconds of each module's own functions, and of the built-in ones that they call."""
    seconds: Seconds = defaultdict(float)
    for (file, _, _), (_, _, own, _, callers) in stats.items():
        if file != "~":
            seconds[module_of(file)] += own
            continue
        for (caller, _, _), (_, _, in_call, _) in callers.items():
            seconds[module_of(caller) if caller != "~" else "built-in"] += in_call
    return dearest(seconds)


def by_function(stats: dict[Any, Any]) -> dict[str, float]:
    """Seconds of the package's dearest functions, with all that they call."""
    seconds: dict[str, float] = {}
    for (file, _, name), (_, _, _, total, _) in stats.items():
        if Path(file).is_relative_to(PACKAGE):
            known_as = f"{module_of(file)}.{name}"
            # Methods of several classes may share a name here; one may well call the other.
            seconds[known_as] = max(total, seconds.get(known_as, 0.0))
    return dearest(seconds, MOST_FUNCTIONS)


def dearest(seconds: Mapping[str, float], most: int | None = None) -> dict[str, float]:
    return dict(sorted(seconds.items(), key=lambda item: -item[1])[:most])


def account(spent: Seconds, profiler: cProfile.Profile | None) -> dict[str, Any]:
    """The process' CPU seconds by thread, and the profile where one was made."""
    total, own = time.process_time(), time.thread_time()
    threads = {"main": own, **spent, "extensions' threads": max(0.0, total - own - sum(spent.values()))}
    if profiler is None:
        return {"seconds": total, "threads": threads}
    stats: dict[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    return {"seconds": total, "threads": threads, "modules": by_module(stats), "functions": by_function(stats)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--profile", metavar="THREAD")
    parser.add_argument("arguments", nargs="+")
    given = parser.parse_args()
    spent: Seconds = defaultdict(float)
    profiler = cProfile.Profile(time.thread_time)
    count_threads(spent, given.profile, profiler)
    sys.argv = ["crdbexport", *given.arguments]
    from crdbexport.cli import main as command

    try:
        command()
    finally:
        given.file.write_text(json.dumps(account(spent, profiler if given.profile else None)))


if __name__ == "__main__":
    main()
