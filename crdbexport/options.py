"""Options as values: decoded from what people and files say, and told in their words where they are wrong."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from crdbexport.errors import ConfigError


class Secret:
    """A value that never shows: every way to print it gives `***`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; call it only where it is sent."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled")


def convert(settings: Any, wanted: Any, *, where: str) -> Any:
    """`settings` decoded into the struct `wanted`; `where` begins the message of the `ConfigError`."""
    try:
        return msgspec.convert(settings, wanted, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_explained(str(error), wanted)}") from error


def _decode(wanted: type, value: Any) -> Any:
    if wanted is Path and isinstance(value, str):
        return Path(value).expanduser()
    if wanted is Secret and isinstance(value, str | int):
        # Settings of stores are texts, also those that TOML writes as true or 8080.
        return Secret(value if isinstance(value, str) else str(value).lower())
    if isinstance(value, wanted):
        return value
    # msgspec adds the place to these, but not to an error of its own.
    raise TypeError(f"Expected `{wanted.__name__}`, got `{type(value).__name__}`")


def _explained(problem: str, wanted: Any) -> str:
    """msgspec's message in words of the configuration: the option first, and a near miss pointed out."""
    text, _, path = problem.partition(" - at `$")
    option = path.strip("`.").replace("[...]", "")
    unknown = re.search(r"unknown field `(.+)`", text)
    if unknown:
        close = difflib.get_close_matches(unknown[1], wanted.__struct_fields__, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(wanted.__struct_fields__)}"
        return f"unknown option {unknown[1]!r}{hint}"
    missing = re.search(r"missing required field `(.+)`", text)
    if missing:
        return f"option {missing[1]!r} is required"
    return f"{option}: {text}{_choices(text, option, wanted)}" if option else text


def _choices(text: str, option: str, wanted: Any) -> str:
    """What there is to choose from, where an option that is one of a few texts is another."""
    kind = next((each.type for each in msgspec.structs.fields(wanted) if each.encode_name == option), None)
    literals = [each for each in (kind, *get_args(kind)) if get_origin(each) is Literal]
    choices = ", ".join(repr(value) for each in literals for value in get_args(each))
    return f"; give one of {choices}" if choices and text.startswith("Invalid enum value") else ""
