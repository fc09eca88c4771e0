"""What a sink's failure means for the run: its exit code, its report, and the other sinks."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from crdbexport import Batch, ConfigError, RunReport, Sink, SinkRefusedError
from crdbexport import attempt as attempt_module
from crdbexport.errors import PluginError
from crdbexport.pipeline.batches import Batcher
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.faults import Delay, Faults, Rule
from crdbexport.sandbox.world import World

Export = Callable[..., RunReport]
FAILURES: tuple[BaseException, ...] = (
    RuntimeError("no"),
    SystemExit(0),
    KeyboardInterrupt("no"),
    asyncio.CancelledError("no"),
    GeneratorExit("no"),
    StopIteration("no"),
)


def failing(telling: Any, method: str, error: BaseException) -> type[Sink]:
    def fail(self: Any) -> None:
        raise error

    return type("Failing", (telling,), {method: fail})


@pytest.mark.parametrize(
    ("method", "error"),
    [*(("write", error) for error in FAILURES), ("open", SystemExit(0)), ("commit", SystemExit(0))],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_no_way_out_of_the_only_sink_ends_the_run_with_exit_code_0(
    export: Export, url: str, offering: Any, telling: Any, method: str, error: BaseException
) -> None:
    report = export(url, sinks={"mine": {"type": "failing"}}, call=offering(failing=failing(telling, method, error)))

    assert (report.status, report.exit_code) == ("failed", 5)
    assert report.sinks[0].status == "failed"
    assert report.sinks[0].error == f"{type(error).__name__}: {error}"
    assert report.error == f"sink mine failed: {type(error).__name__}: {error}"


@pytest.mark.parametrize("error", [SystemExit(0), SinkRefusedError("gone")], ids=lambda error: type(error).__name__)
def test_a_sink_that_fails_leaves_the_others_their_run(
    export: Export, url: str, offering: Any, telling: Any, error: BaseException
) -> None:
    class Fine(Sink):
        def write(self, batch: Batch) -> None: ...

    report = export(
        url,
        sinks={"bad": {"type": "failing"}, "fine": {"type": "fine"}},
        call=offering(failing=failing(telling, "write", error), fine=Fine),
    )

    assert (report.status, report.exit_code) == ("incomplete", 3)
    assert [(sink.name, sink.status) for sink in report.sinks] == [("bad", "failed"), ("fine", "committed")]
    bad, fine = report.sinks
    assert {counts.delivered for counts in bad.streams.values()} == {0}
    assert {counts.undelivered for counts in fine.streams.values()} == {0}


def test_when_every_sink_refuses_for_good_the_run_is_refused_for_good(
    export: Export, url: str, offering: Any, telling: Any
) -> None:
    refusing = failing(telling, "commit", SinkRefusedError("the table has another shape"))

    report = export(
        url, sinks={"one": {"type": "refusing"}, "two": {"type": "refusing"}}, call=offering(refusing=refusing)
    )

    assert (report.status, report.exit_code) == ("failed", 4)
    assert "sink one failed: the table has another shape" in (report.error or "")


def test_when_every_sink_has_failed_the_reading_ends_early(
    export: Export,
    serve: Callable[[Sandbox], str],
    offering: Any,
    telling: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempt_module, "Batcher", functools.partial(Batcher, batch_rows=5))
    faults = Faults(rules=[Rule("/api/v2/databases/movr/tables/.+", Delay(30))])
    app = Sandbox(World(databases=2, tables=2), faults=faults)
    refusing = failing(telling, "write", SinkRefusedError("gone"))
    began = time.monotonic()

    report = export(serve(app), sinks={"mine": {"type": "refusing"}}, call=offering(refusing=refusing))

    assert (report.exit_code, report.error) == (4, "sink mine failed: gone")
    assert report.streams["tables"].extracted < 4
    assert (app.logins, app.logouts) == (1, 1)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("error", "told"),
    [(error, f"{type(error).__name__}: {error}") for error in FAILURES],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_a_preflight_raises_keeps_the_run_from_beginning(
    export: Export, url: str, app: Sandbox, offering: Any, telling: Any, error: BaseException, told: str
) -> None:
    with pytest.raises(PluginError) as raised:
        export(url, sinks={"bad": {"type": "failing"}}, call=offering(failing=failing(telling, "preflight", error)))

    assert str(raised.value) == f"sink bad: {told} (plugin mine)"
    assert raised.value.exit_code == 2
    assert app.hits.total() == 0


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(0)], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("method", "trouble"),
    [
        ("__init__", "cannot be made"),
        ("shown_target", "cannot tell its target"),
        ("directories", "cannot tell its directories"),
    ],
)
def test_what_a_sink_cannot_tell_about_itself_keeps_the_run_from_beginning(
    export: Export, url: str, app: Sandbox, offering: Any, telling: Any, method: str, trouble: str, error: BaseException
) -> None:
    def fail(self: Any, *args: Any) -> None:
        raise error

    with pytest.raises(PluginError) as raised:
        export(
            url,
            sinks={"bad": {"type": "failing"}},
            call=offering(failing=type("Failing", (telling,), {method: fail})),
        )

    assert str(raised.value) == f"sink bad of mine {trouble}: {type(error).__name__}: {error}"
    assert (app.hits.total(), telling.told) == (0, [])


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("option level is 10; the highest is 9", "sink bad: option level is 10; the highest is 9"),
        ("sink bad: option level is 10", "sink bad: option level is 10"),
        ("sink bad (failing): option level is 10", "sink bad (failing): option level is 10"),
        ("sink badger: is no option", "sink bad: sink badger: is no option"),
    ],
)
def test_what_a_sink_says_of_its_options_is_told_with_its_name_once(
    export: Export, url: str, app: Sandbox, offering: Any, telling: Any, said: str, told: str
) -> None:
    def refuse(self: Any, *args: Any) -> None:
        raise ConfigError(said)

    kind = type("Refusing", (telling,), {"__init__": refuse})
    with pytest.raises(ConfigError) as raised:
        export(url, sinks={"bad": {"type": "refusing"}}, call=offering(refusing=kind))

    assert (str(raised.value), raised.value.exit_code) == (told, 2)
    assert app.hits.total() == 0


def test_a_sink_that_breaks_its_contract_when_it_is_made_is_told_as_it_says(
    export: Export, url: str, offering: Any, telling: Any
) -> None:
    def break_it(self: Any, *args: Any) -> None:
        raise PluginError("no driver", plugin="mine")

    with pytest.raises(PluginError, match=r"^no driver$"):
        export(
            url,
            sinks={"bad": {"type": "failing"}},
            call=offering(failing=type("Failing", (telling,), {"__init__": break_it})),
        )


def test_a_sink_with_a_wrong_argument_keeps_the_run_from_beginning(
    export: Export, url: str, app: Sandbox, offering: Any, telling: Any, tmp_path: Path
) -> None:
    class Wrong(telling):  # type: ignore[misc]
        def write(self, batsh: Batch) -> None: ...

    with pytest.raises(PluginError, match="batsh") as raised:
        export(url, sinks={"bad": {"type": "wrong"}}, call=offering(wrong=Wrong))

    assert raised.value.exit_code == 2
    assert (app.hits.total(), telling.told) == (0, [])
    assert not (tmp_path / "state").exists()


@pytest.mark.slow
def test_two_sinks_may_not_share_a_directory(
    export: Export, url: str, app: Sandbox, offering: Any, telling: Any, tmp_path: Path
) -> None:
    class Rooted(telling):  # type: ignore[misc]
        def directories(self) -> Iterable[Path]:
            yield tmp_path / self.config.name

    def exported(other: str) -> RunReport:
        sinks = {"one": {"type": "rooted", "name": "lake"}, "two": {"type": "rooted", "name": other}}
        return export(url, sinks=sinks, call=offering(rooted=Rooted))

    for shared in ("lake", "lake/inner", "lake/../lake", "."):
        with pytest.raises(ConfigError, match="sinks one and two would share"):
            exported(shared)
    assert app.hits.total() == 0
    assert exported("lake2").exit_code == 0
