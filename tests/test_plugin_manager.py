"""Plugins come in from real distributions, each under guard: what fails is named, and nothing is registered by half."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import dedent
from typing import Any, Protocol

import pytest

from crdbexport import RunReport, Sink, hookimpl, hookspec
from crdbexport.errors import ConfigError, PluginError
from crdbexport.hookspecs import ProcessHooks, deprecated
from crdbexport.plugin_info import PluginInfo
from crdbexport.plugin_manager import Plugins, load_plugins
from crdbexport.sandbox.app import Sandbox
from crdbexport.sandbox.world import World

FINE = """
    from crdbexport import Sink, hookimpl

    class Fine(Sink):
        def write(self, batch): ...

    @hookimpl
    def crdbexport_register_sinks(register):
        register("{sink}", Fine)
"""


class Install(Protocol):
    def __call__(
        self, distribution: str, code: str, *, version: str = "1.0", entry_point: str | None = None
    ) -> None: ...


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution of one module on the path, as an installer would leave it there."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    modules: list[str] = []

    def put(distribution: str, code: str, *, version: str = "1.0", entry_point: str | None = None) -> None:
        module = distribution.replace("-", "_")
        modules.append(module)
        (site / f"{module}.py").write_text(dedent(code))
        metadata = site / f"{module}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (metadata / "entry_points.txt").write_text(f"[crdbexport]\n{entry_point or module} = {module}\n")

    yield put
    for module in modules:
        sys.modules.pop(module, None)


def info_of(plugins: Plugins, distribution: str) -> PluginInfo:
    (found,) = [each for each in plugins.infos if each.distribution == distribution]
    return found


def broken(distribution: str) -> str:
    """The error of a plugin that must be broken, and have left nothing behind."""
    plugins = load_plugins()
    info = info_of(plugins, distribution)
    assert info.state == "broken"
    assert "\n" not in info.error
    assert not any(offer.plugin is info for offer in plugins.sinks.values())
    assert not any(offer.plugin is info for offer in plugins.transforms.values())
    assert not plugins.manager.has_plugin(info.key)
    assert info.hooks == []
    assert "parquet" in plugins.sinks
    return info.error


def test_the_built_in_sinks_come_in_by_an_entry_point_like_any_other() -> None:
    info = load_plugins(third_party=False).infos[0]

    assert (info.name, info.distribution, info.location) == ("builtin", "crdbexport", "crdbexport.builtin")
    assert info.version
    assert info.sinks == ["jsonl", "parquet", "webhook"]
    assert info.transforms == ["filter", "mask"]


def test_a_distribution_offers_its_sinks_with_its_name_and_version(install: Install) -> None:
    install("crdbexport-kafka", FINE.format(sink="kafka"), version="2.3", entry_point="kafka")

    plugins = load_plugins()

    info = info_of(plugins, "crdbexport-kafka")
    assert (info.name, info.label, info.state, info.sinks) == ("kafka", "crdbexport-kafka 2.3", "loaded", ["kafka"])
    assert plugins.sink("kafka").plugin is info
    assert issubclass(plugins.sink("kafka").kind, Sink)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import a_library_that_is_missing", "ModuleNotFoundError: No module named 'a_library_that_is_missing'"),
        ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line second line"),
        ("def broken(:", "SyntaxError: "),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
    ],
    ids=["missing-library", "exception", "syntax", "SystemExit"],
)
def test_a_plugin_that_cannot_be_imported_is_named_with_its_cause(
    install: Install, caplog: pytest.LogCaptureFixture, code: str, cause: str
) -> None:
    install("crdbexport-broken", code, version="0.9")

    with caplog.at_level(logging.WARNING, "crdbexport"):
        error = broken("crdbexport-broken")

    assert error.startswith(cause)
    assert f"plugin crdbexport_broken (crdbexport-broken 0.9) is left out: {cause}" in caplog.text


def test_a_misspelt_hook_is_refused_with_the_right_name(install: Install) -> None:
    install("foo", FINE.format(sink="foo").replace("crdbexport_register_sinks", "crdbexport_registers_sink"))

    assert broken("foo") == ("there is no hook 'crdbexport_registers_sink'; did you mean 'crdbexport_register_sinks'?")


def test_a_hook_like_no_other_is_refused(install: Install) -> None:
    install("foo", "from crdbexport import hookimpl\n@hookimpl\ndef zzz(): ...")

    assert broken("foo") == "there is no hook 'zzz'"


def test_a_plugin_that_comes_after_one_with_an_unknown_hook_is_not_blamed_for_it(install: Install) -> None:
    install("aaa", "from crdbexport import hookimpl\n@hookimpl\ndef zzz(): ...")
    install("bbb", FINE.format(sink="bbb"))

    plugins = load_plugins()

    assert [info_of(plugins, name).state for name in ("aaa", "bbb")] == ["broken", "loaded"]


def test_a_hook_with_an_argument_that_does_not_exist_is_refused(install: Install) -> None:
    install("foo", FINE.format(sink="foo").replace("(register)", "(registry)"))

    error = broken("foo")

    assert "crdbexport_register_sinks" in error
    assert "registry" in error


REFUSED = {
    "not a sink": (
        'register("fine", Fine); register("bad", dict)',
        "'bad' is not a subclass of crdbexport.Sink",
    ),
    "an instance": (
        'register("fine", Fine); register("bad", Fine(None))',
        "'bad' is not a subclass of crdbexport.Sink",
    ),
    "no write": (
        'register("fine", Fine); register("bad", type("Bad", (Sink,), {}))',
        "sink 'bad' does not define write(self, batch)",
    ),
    "another API": (
        'register("fine", Fine); register("bad", type("Bad", (Fine,), {"api_version": 2}))',
        "sink 'bad' wants plugin API 2, and this crdbexport has 1; install versions that fit together",
    ),
    "twice": ('register("fine", Fine); register("fine", Fine)', "'fine' is offered twice"),
    "raises": ('register("fine", Fine); raise RuntimeError("no")', "RuntimeError: no"),
    "SystemExit": ('register("fine", Fine); raise SystemExit(0)', "SystemExit: 0"),
    "options of no kind": (
        'register("fine", Fine); register("bad", type("Bad", (Fine,), {"Config": dict}))',
        "'bad' has a Config that is not a subclass of crdbexport.SinkConfig",
    ),
    "coroutine": (
        'register("fine", Fine); register("bad", Waits)',
        "sink 'bad' defines write with async def; a sink has a thread of its own, and plain methods",
    ),
}


@pytest.mark.parametrize(("registration", "cause"), REFUSED.values(), ids=REFUSED)
def test_a_plugin_with_one_bad_sink_is_taken_out_whole_its_fine_sink_too(
    install: Install, registration: str, cause: str
) -> None:
    install(
        "foo",
        f"""
        from crdbexport import Sink, hookimpl

        class Fine(Sink):
            def write(self, batch): ...

        class Waits(Sink):
            async def write(self, batch): ...

        @hookimpl
        def crdbexport_register_sinks(register):
            {registration}
        """,
    )

    assert broken("foo") == cause
    with pytest.raises(PluginError, match="no sink type 'fine'"):
        load_plugins().sink("fine")


def test_a_plugin_whose_transforms_fail_loses_its_sinks_as_well(install: Install) -> None:
    install(
        "foo",
        FINE.format(sink="fine")
        + """
    @hookimpl
    def crdbexport_register_transforms(register):
        register("bad", Fine)
""",
    )

    assert broken("foo") == "'bad' is not a subclass of crdbexport.Transform"


def test_a_name_belongs_to_the_first_distribution_and_both_are_named(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("aaa", FINE.format(sink="kafka"), version="1.1")
    install("bbb", FINE.format(sink="kafka"), version="2.2")

    plugins = load_plugins()

    assert plugins.sink("kafka").plugin.label == "aaa 1.1"
    assert info_of(plugins, "bbb").state == "broken"
    assert "plugin bbb (bbb 2.2) is left out: 'kafka' is already offered by aaa 1.1" in caplog.text


def test_no_distribution_takes_the_name_of_a_built_in_sink(install: Install) -> None:
    install("aaa", FINE.format(sink="parquet"))

    assert broken("aaa").startswith("'parquet' is already offered by crdbexport ")
    assert load_plugins().sink("parquet").plugin.distribution == "crdbexport"


def test_two_distributions_may_name_their_entry_points_alike(install: Install) -> None:
    install("aaa", FINE.format(sink="one"), entry_point="same")
    install("bbb", FINE.format(sink="two"), entry_point="same")

    assert {"one", "two"} <= set(load_plugins().sinks)


def test_a_distribution_that_was_removed_by_half_hurts_nobody(install: Install, tmp_path: Path) -> None:
    install("aaa", FINE.format(sink="one"))
    install("bbb", FINE.format(sink="two"))
    (tmp_path / "site-packages/aaa-1.0.dist-info/METADATA").unlink()

    plugins = load_plugins()

    assert plugins.sink("two").plugin.label == "bbb 1.0"
    assert "parquet" in plugins.sinks


LEAVES_A_TRACE = "from pathlib import Path\nPath(__file__).with_suffix('.imported').touch()"


@pytest.mark.parametrize("names", ["foo-bar", "Foo_Bar", "other, the-entry", "the.entry"])
def test_a_blocked_plugin_is_not_even_imported(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: str
) -> None:
    install("foo-bar", LEAVES_A_TRACE, entry_point="the-entry")
    trace = tmp_path / "site-packages/foo_bar.imported"
    monkeypatch.setenv("CRDBEXPORT_BLOCK_PLUGINS", names)

    assert info_of(load_plugins(), "foo-bar").state == "blocked"
    assert not trace.exists()

    monkeypatch.delenv("CRDBEXPORT_BLOCK_PLUGINS")
    assert info_of(load_plugins(), "foo-bar").state == "loaded"
    assert trace.exists()


def test_only_the_plugins_that_are_allowed_come_in(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install("aaa", FINE.format(sink="one"))
    install("bbb", LEAVES_A_TRACE)
    monkeypatch.setenv("CRDBEXPORT_LOAD_PLUGINS", "aaa")

    plugins = load_plugins()

    assert [info_of(plugins, name).state for name in ("aaa", "bbb")] == ["loaded", "not allowed"]
    assert not (tmp_path / "site-packages/bbb.imported").exists()
    assert {"one", "parquet"} <= set(plugins.sinks)


def test_what_is_blocked_stays_out_although_it_is_allowed(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("aaa", FINE.format(sink="one"))
    monkeypatch.setenv("CRDBEXPORT_LOAD_PLUGINS", "aaa")
    monkeypatch.setenv("CRDBEXPORT_BLOCK_PLUGINS", "aaa")

    assert "one" not in load_plugins().sinks


@pytest.mark.parametrize(
    "variables",
    [{"CRDBEXPORT_LOAD_PLUGINS": ""}, {"CRDBEXPORT_BLOCK_PLUGINS": "crdbexport,builtin"}],
    ids=["none-allowed", "blocked-by-name"],
)
def test_the_built_in_sinks_always_stay(
    install: Install, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    install("aaa", FINE.format(sink="one"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    plugins = load_plugins()

    assert {"parquet", "jsonl", "webhook"} <= set(plugins.sinks)
    assert ("one" in plugins.sinks) == ("CRDBEXPORT_BLOCK_PLUGINS" in variables)


def test_without_third_parties_the_built_in_ones_come_alone(install: Install, tmp_path: Path) -> None:
    install("aaa", LEAVES_A_TRACE)

    plugins = load_plugins(third_party=False)

    assert set(plugins.sinks) == {"parquet", "jsonl", "webhook"}
    assert info_of(plugins, "aaa").state == "blocked"
    assert not (tmp_path / "site-packages/aaa.imported").exists()


def test_the_order_of_plugins_is_the_same_on_every_machine(install: Install) -> None:
    for name in ("mmm", "zzz", "aaa"):
        install(name, FINE.format(sink=name))

    order = [info.distribution for info in load_plugins().infos]

    assert order[0] == "crdbexport"
    assert order[1:] == sorted(order[1:])
    assert {"aaa", "mmm", "zzz"} <= set(order)


def test_an_unknown_sink_type_suggests_the_near_miss_and_tells_what_is_broken(install: Install) -> None:
    install("foo", "import a_library_that_is_missing")
    plugins = load_plugins()

    with pytest.raises(PluginError) as raised:
        plugins.sink("parkett")
    message = str(raised.value)
    assert message.startswith("no sink type 'parkett'; did you mean 'parquet'? installed: ")
    assert "plugin foo (foo 1.0) is broken: ModuleNotFoundError" in message
    with pytest.raises(PluginError, match=r"no transform 'maks'; did you mean 'mask'?"):
        plugins.transform("maks")


def test_a_broken_plugin_stops_only_what_needs_it(
    install: Install, export: Callable[..., RunReport], serve: Callable[[Sandbox], str], tmp_path: Path
) -> None:
    install("foo", "import a_library_that_is_missing")
    url = serve(Sandbox(World(databases=1, tables=1)))

    assert export(url).exit_code == 0
    with pytest.raises(ConfigError, match=r"no sink type 'foo'.*plugin foo .foo 1.0. is broken") as raised:
        export(url, run_id="r2", sinks={"foo": {"type": "foo"}})
    assert raised.value.exit_code == 2


def test_an_installed_sink_takes_a_run_and_is_named_in_its_report(
    install: Install, export: Callable[..., RunReport], serve: Callable[[Sandbox], str]
) -> None:
    install("crdbexport-kafka", FINE.format(sink="kafka"), version="2.3")

    report = export(serve(Sandbox(World(databases=1, tables=1))), sinks={"k": {"type": "kafka"}})

    assert (report.exit_code, report.sinks[0].type) == (0, "kafka")
    assert report.versions["crdbexport-kafka"] == "2.3"


def test_a_plugin_object_that_is_given_fails_aloud() -> None:
    class Misspelt:
        @hookimpl
        def crdbexport_register_sink(self, register: Any) -> None: ...

    with pytest.raises(PluginError, match="plugin mine: there is no hook 'crdbexport_register_sink'") as raised:
        load_plugins(extra=[("mine", Misspelt())])
    assert raised.value.plugin == "mine"


def test_the_plugin_that_the_type_checker_reads_is_one_that_loads() -> None:
    path = Path(__file__).parent / "typing" / "a_plugin_by_a_stranger.py"
    spec = importlib.util.spec_from_file_location("a_plugin_by_a_stranger", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    plugins = load_plugins(third_party=False, extra=[("stranger", module), ("observer", module.Observer())])

    assert {"mine", "least", "other"} <= set(plugins.sinks)
    assert "lower" in plugins.transforms
    assert [info.name for info, _ in plugins.observers("crdbexport_run_finished")] == ["observer"]


def test_observers_are_found_by_plugin_each_with_its_own_call() -> None:
    told: list[str] = []

    class Observer:
        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        def crdbexport_run_finished(self) -> None:
            told.append(self.name)

    plugins = load_plugins(third_party=False, extra=[("one", Observer("one")), ("two", Observer("two"))])

    for info, call in plugins.observers("crdbexport_run_finished"):
        told.append(f"calling {info.name}")
        call(report=None)
    assert told == ["calling one", "one", "calling two", "two"]
    assert plugins.observers("crdbexport_run_started") == []


class LaterHooks(ProcessHooks):
    """The hooks of a later version, one of which is to go, and an argument of another."""

    @hookspec(
        warn_on_impl=deprecated("the hook crdbexport_run_began", instead="crdbexport_run_started", removed_in="2.0")
    )
    def crdbexport_run_began(self, run: Any) -> None: ...

    @hookspec(
        warn_on_impl_args={"size": deprecated("the argument size", instead="the argument report", removed_in="2.0")}
    )
    def crdbexport_run_measured(self, report: Any, size: int) -> None: ...


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "crdbexport_run_began(run)",
            "the hook crdbexport_run_began is deprecated and will be removed in 2.0; use crdbexport_run_started "
            "instead",
        ),
        (
            "crdbexport_run_measured(size)",
            "the argument size is deprecated and will be removed in 2.0; use the argument report instead",
        ),
        ("crdbexport_run_measured(report)", ""),
    ],
)
def test_who_implements_what_will_go_is_named_once_and_works(
    install: Install, caplog: pytest.LogCaptureFixture, code: str, told: str
) -> None:
    install("old", f"from crdbexport import hookimpl\n\n@hookimpl\ndef {code}: ...\n", version="0.9")
    plugins = Plugins(LaterHooks)

    with caplog.at_level(logging.WARNING, "crdbexport"):
        for entry_point in entry_points(group="crdbexport", name="old"):
            plugins.load(entry_point)

    info = info_of(plugins, "old")
    assert info.state == "loaded"
    assert [record.getMessage() for record in caplog.records] == ([f"plugin old (old 0.9): {told}"] if told else [])
    assert info.deprecated == ([told] if told else [])


def test_no_hook_of_this_version_is_deprecated(caplog: pytest.LogCaptureFixture) -> None:
    assert [info.deprecated for info in load_plugins(third_party=False).infos if info.deprecated] == []
    assert caplog.text == ""
