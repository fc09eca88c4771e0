"""Secrets by value: texts are searched for every secret that a run knows, in the shapes in which a text may carry it.

The messages of this package hold no secret to begin with. This is for what strangers word: the errors of plugins and
libraries, which end up in reports, dead letters and the log of the command line.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MASK = "***"
# A shorter one would blot out half of what is said.
SHORTEST = 6
# What is as long as this in the path of a URL, or the value of its query, may be a key.
KEY_LENGTH = 16
# How blanks arrive: as they are, quoted, escaped, or many drawn together into one.
BLANKS = r"(?:[\s+]|%20|%0[9AaDd]|\\+[nrt])+"
URL_SAFE = str.maketrans("+/", "-_")


class Redaction:
    """Takes the secrets of a run out of texts. May be called, and taught, from any thread.

    A secret is looked for as it is, quoted for a URL, a shell, JSON, HTML or Python, in base64 (also within a longer
    text that was encoded) and in hex. Every place is found before one is masked, so that of secrets that overlap no
    end is left. Secrets of fewer than six characters are not looked for.
    """

    def __init__(self) -> None:
        self._patterns: dict[str, re.Pattern[str]] = {}

    def learn(self, *secrets: str | None) -> None:
        """Know these, too, from now on; None and what is too short teaches nothing."""
        new = {text for each in secrets if each and len(text := each.strip()) >= SHORTEST}
        # Another dictionary, for other threads may be looking through this one.
        self._patterns = {**self._patterns, **{each: _pattern(each) for each in new - self._patterns.keys()}}

    def __call__(self, text: str) -> str:
        """`text` with `***` in the place of secrets."""
        told: list[str] = []
        end = 0
        for start, stop in self._places(text):
            if start >= end:
                told += (text[end:start], MASK)
            end = max(end, stop)
        return "".join(told) + text[end:]

    def _places(self, text: str) -> list[tuple[int, int]]:
        return sorted(found.span(1) for pattern in self._patterns.values() for found in pattern.finditer(text))


def credentials_in(url: str) -> Iterator[str]:
    """What a URL shows to whoever reads it: the password before its host, and what may be a key in its query."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.password:
            yield from (parts.password, unquote(parts.password))
        yield from (value for _, value in parse_qsl(parts.query) if len(value) >= KEY_LENGTH)


def keys_in(url: str) -> Iterator[str]:
    """The same for a URL that is a secret itself, as those of webhooks are: all that follows its host, too."""
    yield from credentials_in(url)
    with suppress(ValueError):
        parts = urlsplit(url)
        yield url.partition(parts.netloc)[2].lstrip("/")
        yield from (segment for segment in parts.path.split("/") if len(segment) >= KEY_LENGTH)


def without_credentials(url: str) -> str:
    """A URL as it may be shown: without user, password, query and fragment. What is no URL stays as it is."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme and parts.netloc:
            return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    return url


def _pattern(secret: str) -> re.Pattern[str]:
    # Looking ahead finds places that overlap as well.
    shapes = [_spelled(secret), *map(re.escape, _encoded(secret))]
    return re.compile(f"(?=({'|'.join(shapes)}))")


def _spelled(secret: str) -> str:
    """Each character in whatever way it is written, whether or not the others are quoted."""
    parts = re.split(r"(\s+|\\+)", secret)
    return "".join(_run(part) for part in parts if part)


def _run(part: str) -> str:
    if part.isspace():
        return BLANKS
    # However often a text was quoted: possessive, so that backslashes cost no backtracking.
    return r"(?:\\++|(?:%5[Cc])+)" if part[0] == "\\" else "".join(map(_written, part))


def _written(character: str) -> str:
    if character.isascii() and character.isalnum():
        return character
    raw = character.encode("utf-8", "backslashreplace")
    escapes = {quote(raw, safe=""), "".join(f"\\x{byte:02x}" for byte in raw)}
    told = {json.dumps(character)[1:-1], character.encode("unicode_escape").decode(), html.escape(character)}
    escapes |= told - {character}
    quoted = "|".join(re.escape(each).replace(r"\\", r"\\*+") for each in sorted(escapes, key=len, reverse=True))
    # The quoted ones first, for some begin with the character itself.
    return rf"(?:(?i:{quoted})|\\*+{re.escape(character)})"


def _encoded(secret: str) -> Iterator[str]:
    raw = secret.encode("utf-8", "backslashreplace")
    yield raw.hex()
    for before, shared in enumerate((0, 2, 3)):
        # The characters at both ends depend on what stands beside the secret.
        whole = b64encode(bytes(before) + raw).decode()[shared : (before + len(raw)) * 8 // 6]
        yield from {whole, whole.translate(URL_SAFE)}
