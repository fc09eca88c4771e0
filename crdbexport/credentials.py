"""The password of the login, which may stand in a file."""

from __future__ import annotations

import logging
import os
import stat

import msgspec

from crdbexport.config import ExportConfig
from crdbexport.errors import ConfigError
from crdbexport.options import Secret

OTHERS = stat.S_IROTH | stat.S_IWOTH

log = logging.getLogger(__name__)


def password(config: ExportConfig) -> Secret | None:
    """The password that was given, or the first line of the password file."""
    if config.password is not None or config.password_file is None:
        return config.password
    path = config.password_file
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            line = file.readline()
    except OSError as error:
        raise ConfigError(f"--password-file {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        # The error itself quotes a byte of it.
        raise ConfigError(f"--password-file {path}: cannot be read (it is not UTF-8 text)") from error
    if mode & OTHERS:
        log.warning(
            "--password-file %s: every user of this machine may open it (mode %04o); take that away with chmod o= FILE",
            path,
            mode,
            extra={"event": "password_file_open"},
        )
    return Secret(line.rstrip("\r\n"))


def with_password(config: ExportConfig) -> ExportConfig:
    """The config with the password in it, where one is needed: its file is read once, for it may be a pipe."""
    if config.username is None or config.session is not None:
        return config
    return msgspec.structs.replace(config, password=password(config))
