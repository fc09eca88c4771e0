"""What obstore's errors mean for a run, told without a word of theirs."""

from __future__ import annotations

import re

from crdbexport import ConfigError, CrdbExportError, SinkError, SinkRefusedError

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist|container does not exist")
_NO_CREDENTIALS = re.compile(r"169\.254\.169\.254|metadata\.google|Error performing token request|MissingAccessKey")
_KEY = re.compile(r"Configuration key: '(\w{1,60})'")
_LATER = frozenset({408, 409, 425, 429})
_DENIED = frozenset({401, 403})
_RIGHTS = "check the credentials, and that they may put, get, list and delete objects below this prefix"


class ChangedMeanwhileError(SinkError):
    """A conditional write found another version of the object than it was made for; nothing was written."""


def is_missing_object(error: Exception) -> bool:
    """Whether it is the object that is missing, and not its bucket."""
    return not _NO_BUCKET.search(str(error))


def explained(error: Exception, where: str, doing: str, default: type[CrdbExportError]) -> CrdbExportError:
    """The error to raise for one of obstore's, or `default` for what says nothing of itself."""
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    if isinstance(error, (AlreadyExistsError, PreconditionError)):
        return ChangedMeanwhileError(f"{where}: would not {doing}, for another process has written it meanwhile")
    text = str(error)
    return (
        _about_the_place(error, text, where)
        or _about_the_answer(text, where, doing)
        or default(f"{where}: cannot {doing}: {_without_answer(error, text)}")
    )


def _about_the_place(error: Exception, text: str, where: str) -> CrdbExportError | None:
    from obstore.exceptions import UnknownConfigurationKeyError

    if isinstance(error, UnknownConfigurationKeyError):
        key = found[1] if (found := _KEY.search(text)) else "a key"
        return ConfigError(
            f"{where}: {key} is no setting of this kind of store; correct the options, also those in store"
        )
    if _NO_BUCKET.search(text):
        return ConfigError(f"{where}: there is no such bucket; create it, or correct the URL")
    if "Account must be specified" in text:
        return ConfigError(f"{where}: give the storage account's name as account_name in the option store")
    if _NO_CREDENTIALS.search(text):
        return SinkRefusedError(
            f"{where}: no credentials were found; give them as options of the sink, in the environment, or give this "
            "machine a role"
        )
    return None


def _about_the_answer(text: str, where: str, doing: str) -> CrdbExportError | None:
    if (found := _STATUS.search(text)) is None:
        return None
    status = int(found[1])
    code = _CODE.search(text)
    answer = f"{status} {code[1]}" if code else str(status)
    if status in _DENIED:
        return SinkRefusedError(f"{where}: the store refused to {doing} ({answer}); {_RIGHTS}")
    if status < 500 and status not in _LATER:  # noqa: PLR2004 (from here on, it is the server's fault)
        return SinkRefusedError(
            f"{where}: the store would not {doing} ({answer}); check the options url, endpoint and region"
        )
    return SinkError(f"{where}: the store could not {doing} ({answer}); run the same command again later")


def _without_answer(error: Exception, text: str) -> str:
    if "redirect" in text:
        return "it lies in another region; set the option region"
    if "builder error" in text:
        return "the address is http, or none; use https, or set allow_http = true"
    if "timed out" in text or "Timeout" in text:
        return "it did not answer in time; check the option endpoint, and run the same command again later"
    if "HTTP error" in text:
        return "it cannot be reached; check the option endpoint, and run the same command again later"
    if isinstance(error, NotImplementedError):
        return "this kind of store does not support it"
    system = re.search(r"([\w ]+) \(os error \d+\)", text)
    return f"{system[1].strip() if system else type(error).__name__}; check the url and the settings of the store"
