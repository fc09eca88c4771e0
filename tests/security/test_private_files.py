"""Who may read and redirect what a run writes: state is its owner's alone, what is published follows the umask."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crdbexport import RecordRefusedError, RunReport, Sink, SinkConfig, hookimpl
from crdbexport.config import ExportConfig
from crdbexport.credentials import password, with_password
from crdbexport.disk import private_directory, private_file, write_durably
from crdbexport.errors import ConfigError
from crdbexport.pipeline.state import RunState
from tests.canaries import PASSWORD

Export = Callable[..., RunReport]


@pytest.fixture
def umask() -> Iterator[Callable[[int], object]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


class Refusing(Sink):
    """Takes no grants of tables, so that a run leaves dead letters, and keeps its spool."""

    class Config(SinkConfig):
        path: str = ""

    def write(self, batch: Any) -> None:
        if batch.stream == "table_grants":
            raise RecordRefusedError([], "no")

    @hookimpl
    def crdbexport_register_sinks(self, register: Any) -> None:
        register("refusing", Refusing)


def modes(root: Path) -> dict[str, set[int]]:
    """The modes of all files and all directories below, the root among them."""
    found: dict[str, set[int]] = {"file": set(), "directory": set()}
    for path in (root, *root.rglob("*")):
        found["directory" if path.is_dir() else "file"].add(stat.S_IMODE(path.stat().st_mode))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("mask", "files", "directories"), [(0, 0o666, 0o777), (0o027, 0o640, 0o750)])
def test_a_whole_run_keeps_its_state_private_and_publishes_by_the_umask(
    export: Export, url: str, tmp_path: Path, umask: Callable[[int], object], mask: int, files: int, directories: int
) -> None:
    sinks = {kind: {"type": kind, "target": str(tmp_path / "published" / kind)} for kind in ("parquet", "jsonl")}
    umask(mask)
    plugins = [("refusing", Refusing(SinkConfig()))]
    report = export(
        url,
        sinks={**sinks, "no": {"type": "refusing"}},
        state_dir=tmp_path / "new" / "state",
        call={"plugins": plugins},
    )
    assert report.exit_code == 3
    kept = {path.relative_to(tmp_path / "new/state").parts[0] for path in (tmp_path / "new/state").rglob("*")}
    assert kept == {"runs", "clusters"}
    [run] = (tmp_path / "new/state/runs").iterdir()
    assert {"lock", "journal.db", "spool", "dead_letters"} <= {path.name for path in run.iterdir()}
    assert modes(tmp_path / "new/state") == {"file": {0o600}, "directory": {0o700}}
    published = list((tmp_path / "published").rglob("*"))
    told = {stat.S_IMODE(path.stat().st_mode) for path in published if path.is_file() and path.suffix != ".lock"}
    assert told == {files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in published if path.is_dir()} == {directories}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that nobody meant to be overwritten."""
    path = tmp_path / "precious"
    path.write_text("precious")
    return path


@pytest.mark.parametrize("append", [False, True])
def test_no_private_file_is_written_through_a_link(tmp_path: Path, secret: Path, append: bool) -> None:
    for name, target in (("link", secret), ("dangling", tmp_path / "new")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(OSError, match="symbolic links"):
            private_file(tmp_path / name, append=append)
    assert secret.read_text() == "precious"
    assert not (tmp_path / "new").exists()


def test_no_manifest_is_written_through_a_link(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "via").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        write_durably(b"overwritten", tmp_path / "manifest", via=tmp_path / "via")
    assert secret.read_text() == "precious"


def test_a_lock_is_not_taken_through_a_link(tmp_path: Path, secret: Path) -> None:
    run = RunState(tmp_path / "state", "c1", "r1")
    run.close()
    (run.directory / "lock").unlink(missing_ok=True)
    (run.directory / "lock").symlink_to(secret)
    with pytest.raises(ConfigError, match="--state-dir"):
        RunState(tmp_path / "state", "c1", "r1")
    assert secret.read_text() == "precious"


def linked(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.parent / "elsewhere")


def for_everybody(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def for_the_group(path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


@pytest.mark.parametrize("make", [linked, for_everybody, for_the_group, Path.touch])
@pytest.mark.parametrize("name", ["runs", "runs/c1.r1"])
def test_state_is_not_kept_where_others_could_redirect_it(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    place = tmp_path / "state" / name
    place.parent.mkdir(parents=True, mode=0o700)
    make(place)
    with pytest.raises(ConfigError, match=f"--state-dir .*{place.name}: it is no directory, belongs to another"):
        RunState(tmp_path / "state", "c1", "r1")
    assert not list((tmp_path / "state").rglob("journal.db"))


def test_state_is_not_kept_in_the_directory_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private_directory(tmp_path / "mine")
    private_directory(tmp_path / "mine")
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError, match="belongs to another user"):
        private_directory(tmp_path / "mine")


def config(path: Path) -> ExportConfig:
    return ExportConfig(url=("https://node",), cluster="c1", username="demo", password_file=path)


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o400, False), (0o640, False), (0o644, True), (0o602, True)]
)
def test_a_password_file_that_everybody_may_open_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    path.chmod(mode)
    found = password(config(path))
    assert found is not None
    assert found.reveal() == PASSWORD
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warned
    assert not warned or f"(mode {mode:04o}); take that away with chmod o=" in caplog.text


def test_a_warning_of_the_password_file_is_given_once_a_run(
    url: str, export: Export, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path_factory.mktemp("etc") / "password"
    path.write_text(PASSWORD)
    path.chmod(0o644)
    assert export(url, password=None, password_file=path).exit_code == 0
    assert caplog.text.count("--password-file") == 1


def test_a_password_may_come_out_of_a_pipe_which_is_read_once(url: str, export: Export, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    writer = threading.Thread(target=lambda: pipe.write_text(f"{PASSWORD}\n"), daemon=True)
    writer.start()
    try:
        assert export(url, password=None, password_file=pipe).exit_code == 0
    finally:
        pipe.unlink()
    writer.join(5)
    assert not writer.is_alive()


def test_a_password_that_is_there_or_not_needed_is_not_looked_for(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for settings in ({"session": "t"}, {"no_login": True}):
        other = ExportConfig(url=("https://node",), password_file=nowhere, **settings)  # type: ignore[arg-type]
        assert with_password(other).password is None
    with pytest.raises(ConfigError, match=r"--password-file .*nowhere: cannot be read"):
        with_password(config(nowhere))
