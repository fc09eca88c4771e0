"""The variables that are read here, and a warning for those that look like them: a typo would have no effect at all."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable

from crdbexport.config import VOICE, ExportConfig

PREFIX = "CRDBEXPORT_"
OPTIONS = frozenset({*ExportConfig.__struct_fields__, *VOICE, "config", "sink", "sink_option"}) - {
    "sinks",
    "transforms",
}
OTHERS = frozenset({"load_plugins", "block_plugins", "mask_key", "webhook_secret"})
KNOWN = frozenset(PREFIX + name.upper() for name in OPTIONS | OTHERS)
# Below this, two names have little in common; plugins may have variables of their own.
LIKENESS = 0.7

log = logging.getLogger(__name__)


def warn_of_misspelt(named: Iterable[str]) -> None:
    """Warn of each variable that is nearly one of ours; those that options name (`named`) are read by sinks."""
    read, known = KNOWN.union(named), sorted(each.removeprefix(PREFIX) for each in KNOWN)
    for name in sorted(name for name in os.environ if name.startswith(PREFIX) and name not in read):
        if close := difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1, cutoff=LIKENESS):
            log.warning(
                "the variable %s is not read; did you mean %s?",
                name,
                PREFIX + close[0],
                extra={"event": "variable_unknown", "variable": name},
            )
