"""What an export is asked to do: addresses, credentials, times and files, checked in one place."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crdbexport import ConfigError, ExportConfig, load_config
from crdbexport.addresses import base_url, is_loopback
from crdbexport.config import logical_time, parse_config, read_toml, state_directory
from crdbexport.config_checks import check
from crdbexport.credentials import password
from crdbexport.options import Secret, convert
from crdbexport.records import ON_REQUEST

NOW = datetime(2026, 3, 5, 23, 30, tzinfo=UTC)
CANARY = "s3cret-canary"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("https://node:8080", "https://node:8080/api/v2"),
        ("https://node:8080/", "https://node:8080/api/v2"),
        ("https://node:8080/api/v2", "https://node:8080/api/v2"),
        ("https://node:8080/api/v2/", "https://node:8080/api/v2"),
        ("https://proxy/crdb/one", "https://proxy/crdb/one/api/v2"),
        ("https://proxy/crdb/one/api/v2/", "https://proxy/crdb/one/api/v2"),
        ("http://[::1]:8080", "http://[::1]:8080/api/v2"),
        ("HTTPS://Node", "https://node/api/v2"),
    ],
)
def test_a_base_url_ends_in_the_path_of_the_api(given: str, wanted: str) -> None:
    assert base_url(given) == wanted


@pytest.mark.parametrize(
    "given",
    [
        "",
        "node:8080",
        "//node",
        "https://",
        "ftp://node",
        "https://node?x=1",
        "https://node#x",
        "https://[node",
        "https://n:p",
    ],
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="--url"):
        base_url(given)


@pytest.mark.parametrize(
    "given", ["https://u:{}@node", "https://{}@node", "u:{}@node", "https://u:{}@[node", "https://u:{}@n:x"]
)
def test_an_address_with_a_password_is_refused_without_repeating_it(given: str) -> None:
    with pytest.raises(ConfigError, match="must not hold a user or password") as refusal:
        base_url(given.format(CANARY))
    assert CANARY not in str(refusal.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def config(**settings: Any) -> ExportConfig:
    return ExportConfig(**{"url": ("https://node",), "cluster": "c1", "no_login": True, **settings})


def test_a_password_travels_in_clear_only_to_this_machine_or_on_demand() -> None:
    login = {"username": "u", "password": Secret("p"), "no_login": False}
    check(config(url=("http://127.0.0.1:8080", "https://node"), **login))
    check(config(url=("http://node",)))
    check(config(url=("http://node",), insecure_http=True, **login))
    with pytest.raises(ConfigError, match="http://node/api/v2: a password or session would travel in clear"):
        check(config(url=("https://node", "http://node"), **login))
    with pytest.raises(ConfigError, match="would travel in clear"):
        check(config(url=("http://node",), session=Secret("t"), no_login=False))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, datetime(2026, 3, 5, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T04:00", datetime(2026, 1, 31, 4, tzinfo=UTC)),
        ("2026-01-31T04:00:00Z", datetime(2026, 1, 31, 4, tzinfo=UTC)),
        ("2026-01-31T04:00:00+05:30", datetime(2026, 1, 30, 22, 30, tzinfo=UTC)),
    ],
)
def test_the_logical_time_is_a_moment_in_utc(given: str | None, wanted: datetime) -> None:
    moment = logical_time(config(logical_time=given), NOW)
    assert (moment, moment.tzinfo) == (wanted, UTC)


@pytest.mark.parametrize("given", ["", "today", "2026-13-01", "2026-02-30", "31.01.2026", "0001-01-01T00:00+14:00"])
def test_a_logical_time_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="--logical-time"):
        logical_time(config(logical_time=given), NOW)


def test_a_secret_never_shows() -> None:
    secret = Secret(CANARY)
    assert secret.reveal() == CANARY
    shown = (repr(secret), str(secret), f"{secret}", f"{config(password=secret)}", repr({"session": secret}))
    assert not any(CANARY in each for each in shown)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode(config(password=secret))


def test_a_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes(b" with spaces \r\nsecond line\n")
    found = password(config(password_file=path))
    assert found is not None
    assert found.reveal() == " with spaces "
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        password(config(password_file=path))


def test_settings_are_converted_and_checked() -> None:
    parsed = parse_config({"concurrency": "4", "url": ["https://node"], "state_dir": "~/state", "no_login": "true"})
    assert (parsed.concurrency, parsed.url, parsed.no_login) == (4, ("https://node",), True)
    assert parsed.state_dir == Path("~/state").expanduser()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"concurency": 4}, "unknown option 'concurency'; did you mean 'concurrency'?"),
        ({"xyzzy": 4}, "unknown option 'xyzzy'; known: url, cluster"),
        ({"concurrency": 257}, "concurrency: Expected `int` <= 256"),
        ({"stream": ["tabels"]}, "stream[0]: Invalid enum value 'tabels'"),
        ({"sinks": {"lake": 3}}, "sinks: Expected `object`, got `int`"),
        ({"password_file": 3}, "password_file: Expected `Path`, got `int`"),
        ({"dialect": "nativ"}, "dialect: Invalid enum value 'nativ'; give one of 'auto', 'documented', 'native'"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_config(settings, where="here")
    assert str(refusal.value).startswith(f"here: {reason}")


@pytest.mark.parametrize(("given", "text"), [(True, "true"), (8080, "8080"), ("Text", "Text")])
def test_a_secret_is_a_text_however_toml_writes_it(given: object, text: str) -> None:
    assert convert(given, Secret, where="here").reveal() == text


def test_a_file_and_what_is_laid_over_it_make_a_config(tmp_path: Path) -> None:
    path = tmp_path / "export.toml"
    path.write_text('cluster = "c1"\nconcurrency = 4\n[sinks.lake]\ntype = "parquet"\npath = "/lake"\n')
    loaded = load_config(path, concurrency=2, password=Secret("p"))
    assert (loaded.cluster, loaded.concurrency) == ("c1", 2)
    assert loaded.sinks == {"lake": {"type": "parquet", "path": "/lake"}}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"cluster = \n", r"not valid TOML: Invalid value \(at line 1, column 11\)"),
        (b"cluster = '\xff'\n", r"is not UTF-8 text \(byte 11\)"),
        (b"password = 's3cret-canary'\n", "'password' does not belong in a file; set CRDBEXPORT_PASSWORD"),
        (b"session = 's3cret-canary'\n", "'session' does not belong in a file; set CRDBEXPORT_SESSION"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "export.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as refusal:
        read_toml(path)
    assert str(path) in str(refusal.value)
    assert CANARY not in str(refusal.value)


def test_streams_keep_their_order_whatever_was_asked_for_first() -> None:
    assert config(stream=("columns", "databases")).streams == ("databases", "columns")
    assert len(config().streams) == 6


@pytest.mark.parametrize(("name", "stream"), ON_REQUEST.items())
def test_a_field_is_included_in_its_own_stream_alone(name: Any, stream: Any) -> None:
    sandbox = {"sandbox": True, "include": (name,)}
    check(ExportConfig(**sandbox))
    check(ExportConfig(**sandbox, stream=("indexes", stream)))
    with pytest.raises(
        ConfigError, match=f"--include {name}: a field of the stream {stream}, .* add --stream {stream}"
    ):
        check(ExportConfig(**sandbox, stream=("indexes",)))


def test_state_goes_where_it_was_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert state_directory(config(state_dir=tmp_path)) == tmp_path
    monkeypatch.setenv("CRDBEXPORT_STATE_DIR", "/from/the/environment")
    assert state_directory(config()) == Path("/from/the/environment")
    monkeypatch.delenv("CRDBEXPORT_STATE_DIR")
    assert state_directory(config()).name == "crdbexport"


def test_a_config_made_by_hand_is_checked_before_the_export(settings: dict[str, Any]) -> None:
    from crdbexport import export

    with pytest.raises(ConfigError, match="concurrency: Expected `int` >= 1"):
        export(ExportConfig(**settings, url=("https://node",), concurrency=0))


def test_a_config_file_may_be_named_by_a_string_and_takes_secrets_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prod.toml"
    path.write_text('url = "http://127.0.0.1:8080"\ncluster = "prod"\nusername = "exporter"\nlog_format = "json"\n')
    monkeypatch.setenv("CRDBEXPORT_PASSWORD", "s3cret-canary")
    config = load_config(str(path), run_id="2026-01-31", database="bank")
    assert (config.url, config.database, config.run_id) == (("http://127.0.0.1:8080",), ("bank",), "2026-01-31")
    assert config.password is not None
    assert config.password.reveal() == "s3cret-canary"
    assert load_config(path, password="another").password.reveal() == "another"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["cluster", "run_id"])
def test_a_name_that_is_no_text_is_refused(name: str) -> None:
    config = ExportConfig(url=("http://127.0.0.1:1",), no_login=True, **{"cluster": "c", name: "a\udcff"})
    with pytest.raises(ConfigError, match="not valid UTF-8"):
        check(config)
