"""The plugins as the commands about them see them: what is broken is part of what they tell."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crdbexport.plugin_manager import Plugins
    from crdbexport.redaction import Redaction


def loaded(files: tuple[Path, ...] = (), *, no_plugins: bool = False) -> Plugins:
    """Every plugin that is installed and allowed, and `files`; nothing is logged of those that are broken."""
    from crdbexport.plugin_manager import load_plugins

    logging.getLogger("crdbexport").setLevel(logging.ERROR)
    return load_plugins(third_party=not no_plugins, files=files)


def redaction() -> Redaction:
    """Knows the secrets of the environment: a plugin may word them in its errors."""
    from crdbexport.cli.settings import SECRET_VARIABLES
    from crdbexport.redaction import Redaction

    redact = Redaction()
    redact.learn(*(os.environ.get(name) for name in SECRET_VARIABLES))
    return redact
