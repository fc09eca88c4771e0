"""Five faults that sinks have in practice, each in a sink of its own, told to its author in words that name the fault.

The sinks are plugins of one file, tried as an author tries one: with pytest, and with `plugins conformance --json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from crdbexport.testing import runner
from tests.conftest import Ran

Run = Callable[..., Ran]

# A sink without a fault, and the words in it that each fault replaces.
SOUND = """
import json
import logging
from hashlib import sha256
from pathlib import Path

from crdbexport import Sink, SinkConfig, hookimpl
from crdbexport.testing import Capabilities, SinkConformance

LEFT_OPEN = []


class MySink(Sink):
    class Config(SinkConfig, frozen=True, kw_only=True):
        path: Path
        token: str = ""

    conformance = ":TestMySink"

    def open(self, run):
        self.config.path.mkdir(exist_ok=True)
        name = sha256(f"{run.cluster}/{run.run_id}".encode()).hexdigest()
        self.final, self.hidden = self.config.path / f"{name}.jsonl", self.config.path / f".{name}.part"
        self.lines = []

    def write(self, batch):
        self.lines += [json.dumps({"stream": batch.stream, **row}, default=str) + "\\n" for row in batch.rows()]

    def commit(self):
        self.hidden.write_text("".join(self.lines))
        self.hidden.replace(self.final)

    def abort(self):
        self.lines = []


@hookimpl
def crdbexport_register_sinks(register):
    register("mine", MySink)


class TestMySink(SinkConformance):
    capabilities = Capabilities(append_only=True)

    def make_sink(self, place):
        return MySink(MySink.Config(path=place / "out", token=self.canary))

    def read_back(self, place):
        found = {}
        for path in sorted((place / "out").glob("[!.]*")):
            for line in path.read_text().splitlines():
                row = json.loads(line)
                found.setdefault(row.pop("stream"), []).append(row)
        return found
"""
WRITE = SOUND[SOUND.index("        self.lines += [") : SOUND.index("    def commit")].rstrip("\n")
COMMIT = SOUND[SOUND.index("        self.hidden.write_text") : SOUND.index("    def abort")].rstrip("\n")


@dataclass(frozen=True)
class Fault:
    """What of the sound sink is written otherwise, which check finds it, and what the author is told."""

    sound: str
    faulty: str
    check: str
    told: str


FAULTS = {
    "publishes early": Fault(
        WRITE,
        f'{WRITE}\n        self.final.write_text("".join(self.lines))',
        "nothing_before_commit",
        "readers see 5030 records before the commit",
    ),
    "loses the last batch": Fault(
        WRITE,
        f'        self.lines += getattr(self, "waiting", [])\n{WRITE.replace("self.lines +=", "self.waiting =")}',
        "every_stream",
        "table_grants: 3 records should be there and 0 are; 3 are missing and 0 are too many",
    ),
    "duplicates on retry": Fault(
        COMMIT,
        '        with self.final.open("a") as file:\n            file.writelines(self.lines)',
        "lost_acknowledgement",
        "databases: 5 records should be there and 10 are; 0 are missing and 5 are too many",
    ),
    "never flushes": Fault(
        COMMIT,
        '        LEFT_OPEN.append(self.final.open("w"))\n        LEFT_OPEN[-1].writelines(self.lines)',
        "one_record_arrives",
        "databases: 1 records should be there and 0 are; 1 are missing and 0 are too many",
    ),
    "leaks the secret": Fault(
        COMMIT,
        f'{COMMIT}\n        logging.getLogger("mine").info("published with %s", self.config.token)',
        "no_secret_in_logs",
        "the secret is in a log record",
    ),
}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a sink, with a fault or (empty) without."""

    def write(fault: str) -> Path:
        code = SOUND
        if fault:
            assert SOUND.count(FAULTS[fault].sound) == 1
            code = SOUND.replace(FAULTS[fault].sound, FAULTS[fault].faulty)
        path = tmp_path / "test_my_sink.py"
        path.write_text(code)
        return path

    return write


def with_pytest(path: Path, checks: set[str]) -> subprocess.CompletedProcess[str]:
    tests = [f"{path.name}::TestMySink::test_{each}" for each in sorted(checks)]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests],
        cwd=path.parent,
        env={**os.environ, "COLUMNS": "300", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )


ALL = {each.check for each in FAULTS.values()}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_pytest_tells_the_author_which_fault_it_is(written: Callable[[str], Path], fault: str) -> None:
    ran = with_pytest(written(fault), ALL)
    assert ran.returncode == 1
    failures = [line for line in ran.stdout.splitlines() if line.startswith("FAILED")]
    (found,) = [line for line in failures if f"test_{FAULTS[fault].check} " in line]
    assert found.endswith(f" - Failed: {FAULTS[fault].told}")
    assert f"The check `{FAULTS[fault].check}` claims: " in ran.stdout
    assert "crdbexport/testing" not in ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_command_tells_programs_which_fault_it_is(
    written: Callable[[str], Path], run_cli: Run, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(runner, "CHECKS", tuple(each for each in runner.CHECKS if each.name in ALL))
    ran = run_cli("plugins", "conformance", "mine", "--plugin", str(written(fault)), "--json")
    assert ran.exit_code == 3
    results = {each["name"]: each for each in json.loads(ran.out)["checks"]}
    found = results[FAULTS[fault].check]
    assert found["verdict"] == "failed"
    assert found["reason"] == FAULTS[fault].told
    assert found["claim"].endswith(".")


@pytest.mark.slow
def test_the_sink_without_a_fault_passes(
    written: Callable[[str], Path], run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written("")
    assert with_pytest(path, ALL).returncode == 0
    monkeypatch.setattr(runner, "CHECKS", tuple(each for each in runner.CHECKS if each.name in ALL))
    assert run_cli("plugins", "conformance", "mine", "--plugin", str(path), "--json").exit_code == 0
