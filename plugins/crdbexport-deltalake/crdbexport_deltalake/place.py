"""Where the tables are: a local directory or an object store, and what its errors mean for a run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from crdbexport import ConfigError, SinkError, SinkRefusedError
from crdbexport.config import Secret
from crdbexport.redaction import without_credentials
from crdbexport.sinks.tables import refuse_unwritable

# So that a place that cannot be reached is known within seconds, before anything is read.
IMPATIENT = {"max_retries": "2", "retry_timeout": "15s", "connect_timeout": "5s", "timeout": "10s"}
REFUSALS = {
    # What is asked last, where nothing else has any, is the machine's own metadata service.
    r"loading credentials|CredentialsNotLoaded|/latest/api/token|Missing \w*AccessKey": "found no "
    "credentials; set them in the environment, or as storage_options",
    r"NoSuchBucket|bucket does not exist": "there is no such bucket; make it, or name another",
    r"\b40[13]\b|Forbidden|AccessDenied|Unauthenticated|Unauthorized|SignatureDoesNotMatch|InvalidAccessKeyId": "the "
    "store refuses the credentials; give them the right to list, read and write there",
    r"URL scheme is not allowed": "requests would travel in clear; use https, or set allow_http in storage_options",
    r"Unknown scheme|InvalidTableLocation|No suitable object store|Not a valid": "root is no place that delta-rs knows",
}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_QUERY = re.compile(r"(?<=\w)\?\S*")
# The body of an answer; its code is the only word in it that helps.
_BODY = re.compile(r"<(?:\?xml|Error)\b.*", re.DOTALL)
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")


@dataclass(frozen=True)
class Place:
    """The root below which each stream has its table."""

    root: str
    options: dict[str, Secret] = field(repr=False)

    @property
    def directory(self) -> Path | None:
        """The root where it is a directory of this machine."""
        return None if "://" in self.root else Path(self.root).expanduser().absolute()

    def of(self, stream: str) -> str:
        """Where the stream's table is."""
        return str(self.directory / stream) if self.directory else f"{self.root.rstrip('/')}/{stream}"

    def storage_options(self, *, impatient: bool = False) -> dict[str, str]:
        """What delta-rs is told of the store; environment variables come in by themselves."""
        given = {name: value.reveal() for name, value in self.options.items()}
        return IMPATIENT | given if impatient and not self.directory else given

    def check(self) -> None:
        """Refuse a directory in which nothing can be written; nothing stays of the attempt."""
        if not self.root.strip():
            raise ConfigError("root is empty; name a directory, or a URI such as s3://bucket/clusters")
        if self.directory is not None:
            refuse_unwritable(self.directory, "root")


@contextmanager
def errors_at(location: str) -> Iterator[None]:
    """Tell what the store refuses for good from what may work later, such as a full disk."""
    from deltalake.exceptions import DeltaError, SchemaMismatchError

    try:
        yield
    except (DeltaError, OSError, ValueError) as error:
        shown = without_credentials(location)
        cause = cause_of(error)
        for pattern, what in REFUSALS.items():
            if re.search(pattern, str(error)):
                raise SinkRefusedError(f"{shown}: {what} ({cause})") from None
        if isinstance(error, SchemaMismatchError):
            raise SinkRefusedError(f"{shown} does not take the records: {cause}; rename the table") from error
        raise SinkError(f"{shown} cannot be written or read: {cause}; mend that, then run the same command") from error


def cause_of(error: BaseException) -> str:
    """The first and the last line of what delta-rs tells, which may be a tree in colours."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    text = _BODY.sub(_code_in, _QUERY.sub("", _ESCAPES.sub("", str(error)))).replace("Kernel error -> ", "")
    lines = [line.strip(" ↳") for line in text.splitlines()]
    told = [line for line in lines if line]
    return ": ".join(dict.fromkeys((told[0], told[-1]))) if told else type(error).__name__


def _code_in(body: re.Match[str]) -> str:
    code = _CODE.search(body[0])
    return code[1] if code else "..."
