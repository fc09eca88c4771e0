"""Errors are grouped by what to do; the exit code is part of the group, and so is what they carry."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from crdbexport import errors
from crdbexport.errors import (
    CrdbExportError,
    LookAgainError,
    PartlyReadError,
    PluginError,
    RecordRefusedError,
    SinkBusyError,
    StoppedError,
    UnreadableError,
    shown,
)

ALL = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, CrdbExportError)]
EXIT_CODES = {
    "CrdbExportError": 1,
    "ConfigError": 2,
    "PluginError": 2,
    "PreflightError": 2,
    "ClusterRefusedError": 4,
    "AuthenticationError": 4,
    "RedirectRefusedError": 4,
    "CertificateError": 4,
    "UnexpectedServerError": 4,
    "TryLaterError": 5,
    "ClusterUnavailableError": 5,
    "StorageError": 5,
    "RunHeldError": 5,
    "SinkError": 5,
    "SinkRefusedError": 4,
    "StrictRefusalError": 4,
    "OutputClosedError": 141,
    "SnapshotKeptError": 3,
    "SinkBusyError": 5,
    "RecordRefusedError": 5,
}


def depth(kind: type[Any]) -> int:
    return kind.__mro__.index(CrdbExportError)


def test_every_error_has_the_exit_code_of_its_group() -> None:
    told_by_instance = {StoppedError, UnreadableError, LookAgainError, PartlyReadError}

    assert {each.__name__: each.exit_code for each in ALL if each not in told_by_instance} == EXIT_CODES


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_the_tree_in_the_docstring_shows_every_error_under_its_parent(kind: type[CrdbExportError]) -> None:
    assert errors.__doc__ is not None
    found = (re.match(r"    (\W*)(\w+Error)\b", line) for line in errors.__doc__.splitlines())
    drawn = [(len(each[1]) // 4, each[2]) for each in found if each]
    names = [name for _, name in drawn]

    assert names.count(kind.__name__) == 1
    place = names.index(kind.__name__)
    assert drawn[place][0] == depth(kind)
    if kind is not CrdbExportError:
        above = [name for level, name in drawn[:place] if level == depth(kind) - 1]
        assert above[-1] == kind.__mro__[1].__name__


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_is_an_exception_with_one_sentence_about_it(kind: type[CrdbExportError]) -> None:
    assert kind.__name__.endswith("Error")
    assert kind.__doc__
    assert not issubclass(kind, SystemExit | OSError)


@pytest.mark.parametrize(("signal_number", "exit_code"), [(2, 130), (15, 143)])
def test_a_stopped_run_exits_as_the_shell_expects(signal_number: int, exit_code: int) -> None:
    assert StoppedError(signal_number).exit_code == exit_code


def test_errors_carry_their_facts_as_attributes() -> None:
    refused = RecordRefusedError(["a", "b", "a"], "too long", rest_written=True)

    assert (refused.record_ids, refused.reason, refused.rest_written) == (frozenset("ab"), "too long", True)
    assert SinkBusyError(retry_after=1.5).retry_after == 1.5
    assert PluginError("broken", plugin="foo 1.0").plugin == "foo 1.0"
    assert UnreadableError("no", reason="forbidden", http_status=403).reason == "forbidden"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("bank", '"bank"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("two\nlines", r'"two\nlines"'),
        ("\x1b[31mred", r'"\x1b[31mred"'),
        ("right\u202eto left", r'"right\u202eto left"'),
        ("zero\u200bwidth", r'"zero\u200bwidth"'),
        ("漢字 🐓", '"漢字 🐓"'),
    ],
    ids=ascii,
)
def test_a_name_is_shown_so_that_it_cannot_play_tricks_on_a_terminal(name: str, safe: str) -> None:
    assert shown(name) == safe
