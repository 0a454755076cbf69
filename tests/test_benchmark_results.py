# SPDX-License-Identifier: Apache-2.0
"""Tests of the benchmarks' program: its environment, files and flags."""

import inspect
import types

import pytest
from matplotlib.figure import Figure

from benchmarks import __main__ as program
from benchmarks import environment, peers, results
from system import errors
from tests.helpers import command


@pytest.fixture
def facts():
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "abc",
        "processor": "A processor",
        "cores": 2,
        "onednn": "1",
        "load_average_before": 0.125,
        "versions": {"python": "3.11.0", "torch": None},
    }


def test_environment(facts, monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package"))
    monkeypatch.setattr(environment, "SETTLING_SECONDS", 0)
    found = environment.facts()
    assert found.keys() == facts.keys()
    assert found["versions"]["no-such-package"] is None
    text = environment.describe(found)
    assert "load average before" in text and "no-such-package missing" in text
    assert environment.describe(facts).startswith("A processor, 2 cores, load average")


def test_environment_waits_for_the_load_to_fall(monkeypatch, capsys):
    loads = [99.0, 98.0, 97.0, 0.25]
    monkeypatch.setattr(
        environment.os, "getloadavg", lambda: [loads.pop(0) if loads[1:] else loads[0]]
    )
    monkeypatch.setattr(environment.time, "sleep", lambda seconds: None)
    assert environment.facts()["load_average_before"] == 0.25
    assert "waiting for the load average" in capsys.readouterr().out


def test_a_busy_machine_is_reported(facts):
    assert "NOT TO BE TRUSTED" not in environment.describe(facts)
    busy = environment.describe({**facts, "load_average_before": 1.5})
    assert busy.splitlines()[2].startswith("NOT TO BE TRUSTED: other programs")


def stand_in(title):
    """A benchmark with a plot, whose figure is the number of rounds."""
    return types.SimpleNamespace(
        measure=lambda rounds: {"rounds": rounds},
        markdown=lambda figures: f"## {title}\n\n{figures['rounds']} rounds",
        plots=lambda figures: {title: Figure()},
    )


@pytest.fixture
def benchmarks(monkeypatch):
    """Gives the program two benchmarks, "a" and "b"."""
    pair = {name: stand_in(name) for name in ("a", "b")}
    monkeypatch.setattr(program, "BENCHMARKS", pair)
    return pair


def test_every_benchmark_has_the_interface():
    for benchmark in program.BENCHMARKS.values():
        assert callable(benchmark.measure) and callable(benchmark.markdown)
        assert next(iter(inspect.signature(benchmark.measure).parameters)) == "rounds"


def test_results_are_written(tmp_path, facts, benchmarks, capsys):
    folder = tmp_path / "new"
    program.measure(["b", "a"], 3, folder, facts)
    out = capsys.readouterr().out
    assert "## b\n\n3 rounds\n\nb done, 0.0 minutes\n## a" in out
    assert results.read(folder) == {
        name: {"environment": facts, "figures": {"rounds": 3}} for name in "ab"
    }
    page = (folder / "results.md").read_text()
    first, second = page.split("## b")  # in the order of the benchmarks
    for name, section in (("a", first), ("b", second)):
        assert f"(plots/{name}.svg)" in section and "A processor" in section
        assert "<svg" in (folder / "plots" / f"{name}.svg").read_text()
    found = sorted(path.name for path in folder.rglob("*"))
    assert found == ["a.svg", "b.svg", "plots", "results.json", "results.md"]


def test_one_benchmark_alone_leaves_the_others_as_they_were(
    tmp_path, facts, benchmarks
):
    program.measure(["a", "b"], 3, tmp_path, facts)
    later = {**facts, "processor": "Another processor"}
    program.measure(["b"], 7, tmp_path, later)
    assert results.read(tmp_path) == {
        "a": {"environment": facts, "figures": {"rounds": 3}},
        "b": {"environment": later, "figures": {"rounds": 7}},
    }
    first, second = (tmp_path / "results.md").read_text().split("## b")
    assert "3 rounds" in first and "A processor" in first
    assert "7 rounds" in second and "Another processor" in second


def test_results_stay_when_a_later_benchmark_fails(tmp_path, facts, benchmarks):
    def fail(rounds):
        raise peers.BenchmarkError("no luck")

    benchmarks["b"].measure = fail
    with pytest.raises(peers.BenchmarkError, match="no luck"):
        program.measure(["a", "b"], 1, tmp_path, facts)
    assert list(results.read(tmp_path)) == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", '{"environment": {"cores": 2}}'),
        '{"a": {"environment": {}, "figures": NaN}}',
    ],
)
def test_a_foreign_results_file_is_refused_before_measuring(
    tmp_path, facts, benchmarks, text
):
    (tmp_path / "results.json").write_text(text)
    benchmarks["a"].measure = None  # cannot be called
    with pytest.raises(errors.UserError, match="move it away") as error:
        program.measure(["a"], 1, tmp_path, facts)
    assert "\n" not in str(error.value)
    assert (tmp_path / "results.json").read_text() == text


def test_figures_that_cannot_be_shown_give_one_line(tmp_path):
    found = {"logging": {"environment": {}, "figures": {"rounds": "many"}}}
    with pytest.raises(errors.UserError, match="other figures for logging"):
        results.write(tmp_path, found, {"logging": program.BENCHMARKS["logging"]})
    assert not list(tmp_path.iterdir())


def test_results_that_cannot_be_written_give_one_line(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(
        errors.UserError, match="cannot write the results to .*: "
    ) as error:
        results.write(file, {}, {})
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "flags, word",
    [
        (["--rounds=0"], "rounds"),
        (["--only=step,nonesuch"], ", ".join(program.BENCHMARKS)),
        (["--quick", "--only=growth"], "drop --only"),
    ],
)
def test_a_bad_flag_gives_one_line(flags, word):
    done = command("-m", "benchmarks", *flags)
    assert done.returncode == errors.USAGE_ERROR
    assert len(done.stderr.splitlines()) == 1 and word in done.stderr
