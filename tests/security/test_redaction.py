"""Secrets are found by value, in whatever shape a text carries them."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crdbexport.redaction import SHORTEST, Redaction, credentials_in, keys_in, without_credentials
from crdbexport.sinks.webhook import WebhookSink
from crdbexport.transforms.mask import Mask
from tests.canaries import PASSWORD, shapes_of

SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=SHORTEST, max_size=30).filter(
    lambda text: text.strip() == text and len(text.split()) == 1
)


def knowing(*secrets: str) -> Redaction:
    redaction = Redaction()
    redaction.learn(*secrets)
    return redaction


@pytest.mark.slow
@settings(deadline=None)
@given(SECRETS)
@example(PASSWORD)
@example("pässwörd\U0001f600")
@example('"\\"\\\\"')
@example("%41%2f+&")
def test_a_secret_is_found_in_every_shape(secret: str) -> None:
    redact = knowing(secret)
    for shape in shapes_of(secret):
        told = redact(f"before <{shape.decode()}> after")
        assert told.startswith("before <***")
        # Base64 shares its last character with what follows.
        assert told.endswith(("***> after", "=> after", *(f"***{end}> after" for end in shape.decode()[-2:])))
        assert shape.decode() not in told


def test_a_secret_that_was_quoted_again_and_again_is_found() -> None:
    text = PASSWORD
    for _ in range(4):
        text = repr({"error": text})
        assert "Kanari" in text
        assert "Kanari" not in knowing(PASSWORD)(text)


def test_line_breaks_and_blanks_of_a_secret_may_have_been_drawn_together() -> None:
    key = "-----BEGIN KEY-----\nabcdef  ghijkl\n-----END KEY-----\n"
    redact = knowing(key)
    assert redact(f"bad key {' '.join(key.split())}!") == "bad key ***!"
    assert redact(f"bad key {key!r}!") == "bad key '***\\n'!"


def test_of_secrets_that_overlap_no_end_is_left() -> None:
    redact = knowing("abcdefgh", "abcdef", "efghijkl", "xyxyxy")
    assert redact("<abcdefghijkl>") == "<***>"
    assert redact("<abcdefg>") == "<***g>"
    assert redact("<xyxyxyxy>") == "<***>"
    assert redact("abcdef abcdef") == "*** ***"


def test_what_is_empty_or_too_short_to_tell_from_words_is_no_secret() -> None:
    redact = knowing("", "demo", "   ", "ab cd")
    redact.learn(None)
    assert redact("the demo of ab cd") == "the demo of ab cd"


@settings(deadline=None)
@given(st.text(max_size=200))
def test_who_knows_nothing_changes_nothing(text: str) -> None:
    assert Redaction()(text) == text


@pytest.mark.parametrize("text", ["\\" * 50_000, '"' * 50_000, " " * 50_000, "%5c" * 20_000, 'a\\"' * 20_000])
def test_no_text_takes_long(text: str) -> None:
    redact = knowing('a\\\\"\\"\\ \\', "   a   \\\\\\   b   ", PASSWORD)
    started = time.monotonic()
    redact(text)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("url", "credentials"),
    [
        ("postgres://me:s3cr%40t@db:5432/lake?sslmode=require", ["s3cr%40t", "s3cr@t"]),
        ("https://api.example.com/x?token=0123456789abcdef&page=2", ["0123456789abcdef"]),
        ("./lake", []),
        ("s3://bucket/a/very/long/prefix/of/no/secrecy", []),
        ("http://[::1", []),
    ],
)
def test_credentials_are_found_in_urls(url: str, credentials: list[str]) -> None:
    assert list(credentials_in(url)) == credentials


def test_all_that_follows_the_host_of_a_webhook_may_be_its_key() -> None:
    url = "https://hooks.example.com/services/T0000/0123456789abcdefXYZ?v=1"
    assert list(keys_in(url)) == ["services/T0000/0123456789abcdefXYZ?v=1", "0123456789abcdefXYZ"]
    assert list(keys_in("https://hooks.example.com")) == [""]
    assert list(keys_in("http://[::1")) == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://me:s3cret@db:5432/lake?password=x#y", "postgres://db:5432/lake"),
        ("https://db/x", "https://db/x"),
        ("./lake:a@b?c", "./lake:a@b?c"),
        ("http://[::1", "http://[::1"),
        ("-", "-"),
    ],
)
def test_a_target_is_shown_without_credentials(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_the_built_in_plugins_tell_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    secret, key = "d2hzZWMgb2YgdGhpcnR5LXR3byBieXRlcywgYWJvdXQ=", "0123456789abcdef-key"
    monkeypatch.setenv("HOOK", f"whsec_{secret}")
    monkeypatch.setenv("KEY", key)
    hook = WebhookSink(WebhookSink.Config(url="https://hooks.example.com/k3y/of/hook", secret_env="HOOK"))
    assert set(hook.secrets()) == {f"whsec_{secret}", secret, "k3y/of/hook"}
    assert list(Mask(Mask.Config(fields=("grantee",), key_env="KEY")).secrets()) == [key]
