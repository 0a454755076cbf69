# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks measure and report; never how fast it is."""

import importlib.util
import inspect
import json
import math
import subprocess
import sys
import types
from pathlib import Path

import pytest
import tensorflow as tf
from matplotlib.figure import Figure

import models
from benchmarks import __main__ as program
from benchmarks import environment, flops, ours, peers, results, step, step_peers
from models import batch_norm
from system import console, errors

ROOT = Path(__file__).parent.parent

STAND_INS = """
from benchmarks import peers
from system import errors

def double(*, factor=2):
    print("a library's chatter")
    return lambda number: factor * number

def missing(**_):
    import no_such_library

def helpless():
    raise peers.Missing("needs a compiler")

def failing():
    raise errors.UserError("no luck")

def broken():
    def answer(_):
        raise ValueError("two\\nlines")
    return answer

def loop(*, speed):
    return lambda s: {"images_per_second": speed * s, "parameters": 7}

def gemm():
    return lambda s: {"gflops": 10 * s}

PEERS = {f.__name__: f for f in (double, missing, helpless, failing, broken, gemm)}
PEERS |= {"ours": loop, "keras": loop}
"""


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Name of a module whose peers load no library."""
    (tmp_path / "stand_ins.py").write_text(STAND_INS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "stand_ins"


@pytest.fixture
def result():
    """Three rounds with 1e10 FLOP per image on a machine with 1e5 GFLOP/s."""
    speeds = {"ours": [4000.0, 5000.0, 9000.0], "keras": [2000.4, 1000.0, 4000.0]}
    return {
        "batch_size": 128,
        "flops": {"conv1": {"forward": 4 * 10**9, "backward": 6 * 10**9}},
        "gemm": {"size": 2048, "gflops": [8e4, 1e5, 9e4]},
        "peers": {
            name: {"settings": {"threads": 2}, "images_per_second": s, "parameters": 7}
            for name, s in speeds.items()
        }
        | {"torch_eager": {"missing": "No module named 'torch'"}},
    }


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


def cells(markdown):
    """Rows of all tables, without their headers."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


# --- peers ---


def test_peer_answers_until_it_is_closed(stand_ins):
    with peers.Peer(stand_ins, "double", {"factor": 3}) as peer:
        assert [peer.ask(4), peer.ask(0.5)] == [12, 1.5]
    assert peer._process.returncode == 0
    peer.close()  # a second time is harmless


@pytest.mark.parametrize(
    "name, reason", [("missing", "no_such_library"), ("helpless", "needs a compiler")]
)
def test_missing_peer(stand_ins, name, reason):
    with pytest.raises(peers.Missing, match=reason):
        peers.Peer(stand_ins, name, {})


def test_a_failing_peer_gives_one_line_with_the_command(stand_ins):
    with pytest.raises(peers.BenchmarkError) as error:
        peers.Peer(stand_ins, "failing", {})
    command = console.command("-m", "benchmarks.serve", stand_ins, "failing", "{}")
    failed = "the peer failing failed: no luck; to see its full output: echo 1 | "
    assert str(error.value) == failed + command


def test_a_peer_that_fails_later_gives_one_line(stand_ins):
    with peers.Peer(stand_ins, "broken", {}) as peer:
        with pytest.raises(peers.BenchmarkError, match="^the peer broken failed: li"):
            peer.ask(1)


def test_killed_peer(stand_ins):
    with peers.Peer(stand_ins, "double", {}) as peer:
        peer._process.kill()
        peer._process.wait()
        with pytest.raises(peers.BenchmarkError, match="killed by SIGKILL"):
            peer.ask(1)


# --- FLOPs ---


def test_flops_by_hand():
    assert flops.multiply_adds() == {
        "conv1": 84_672,  # 784 pixels of 9 weights and 12 maps
        "conv2": 292_032,  # 169 of 108 weights and 16 maps
        "dense1": 165_888,  # 576 × 288
        "dense2": 41_472,  # 288 × 144
        "logits": 1_440,  # 144 × 10
    }
    layers_flops = flops.training_step()
    assert layers_flops["conv1"] == {"forward": 169_344, "backward": 169_344}
    assert layers_flops["conv2"] == {"forward": 584_064, "backward": 1_168_128}
    assert flops.total(layers_flops) == 3_343_680


@pytest.mark.parametrize("width", [1, 2])
def test_flops_are_those_of_the_network(width):
    network = models.build({"network": "lenet", "width": width})
    places = {"conv1": 28 * 28, "conv2": 13 * 13}
    counts = {
        name: places.get(name, 1) * int(tf.size(getattr(network, name).w))
        for name in ("conv1", "conv2", "dense1", "dense2", "logits")
    }
    assert flops.multiply_adds(width) == counts


# --- step ---


def test_settings_are_those_of_the_flagfile_with_a_constant_rate():
    config = ours.train_config(threads=3)
    text = (ROOT / "lenet.flags").read_text(encoding="utf-8")
    for name in ("dropout", "batch_norm_decay"):
        assert f"--{name}={config[name]}\n" in text
    assert (config["batch_norm"], config["batch_norm_first"]) == ("all", False)
    assert config["dropout"] == step_peers.DROPOUT
    assert config["batch_norm_decay"] == step_peers.BATCH_NORM_DECAY
    assert batch_norm.EPSILON == step_peers.BATCH_NORM_EPSILON
    assert (config["batch_size"], config["threads"]) == (128, 3)
    assert (config["schedule"], config["learning_rate"]) == ("constant", 1e-3)
    assert (config["weight_decay"], config["weight_average"]) == (0, 0)


def test_every_peer_is_tried_quickly_and_in_full():
    assert set(step.SETTINGS) == set(step_peers.LOOPS) == set(step.QUICK_SETTINGS)
    for peer, count in step.QUICK_SETTINGS.items():
        assert 1 <= count <= len(step.SETTINGS[peer])


def test_timer_converts_seconds_to_steps():
    taken = []

    def run(steps):
        taken.append(steps)
        return 0.5 * steps

    ask = ours.timer(ours.Loop(run, 7))
    assert sum(taken) == ours.WARM_UP_STEPS
    assert ask(20.0) == {"images_per_second": 256.0, "parameters": 7}
    assert taken[-1] == 40
    ask(0.0)
    assert taken[-1] == ours.BLOCK_STEPS


def test_compare_takes_the_best_settings_and_names_missing_peers(
    stand_ins, monkeypatch, capsys
):
    monkeypatch.setattr(step, "PEERS", stand_ins)
    some = [{"speed": 3}, {"speed": 5}, {"speed": 4}]
    settings = {"ours": some[:1], "missing": some, "keras": some}
    found = step.compare(settings, rounds=2, seconds=10, turn_seconds=1)
    assert "no_such_library" in found["peers"].pop("missing")["missing"]
    assert found["peers"] == {
        "ours": {
            "settings": {"speed": 3},
            "images_per_second": [30, 30],
            "parameters": 7,
            "tried": [],  # there was no choice
        },
        "keras": {
            "settings": {"speed": 5},
            "images_per_second": [50, 50],
            "parameters": 7,
            "tried": [
                {"settings": one, "images_per_second": [one["speed"]] * step.TURNS}
                for one in some
            ],
        },
    }
    assert found["gemm"] == {"size": 2048, "gflops": [100, 100]}
    assert json.loads(json.dumps(found)) == found
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("missing is missing: No module named")
    assert lines[2] == "keras (speed 5): 5 images/s"
    assert lines[-1] == "round 2 of 2, images/s: ours 30, keras 50, gemm 100 GFLOP/s"


def test_peers_of_tensorflow_train_the_same_network():
    settings = {"ours": [{"threads": 1}], "keras": step.SETTINGS["keras"][1:2]}
    found = step.compare(settings, rounds=1, seconds=0)
    for peer in found["peers"].values():
        assert 0 < peer["images_per_second"][0] < math.inf
        assert peer["parameters"] == 212_026  # 211,106 and 2 for each of 460 norms
    assert 0 < found["gemm"]["gflops"][0] < math.inf


def test_pytorch_trains_the_same_network_or_is_missing():
    settings = {"threads": 1, "channels_last": True}
    try:
        with peers.Peer(step.PEERS, "torch_eager", settings) as peer:
            assert peer.ask(0)["parameters"] == 212_026
    except peers.Missing as missing:
        assert importlib.util.find_spec("torch") is None and "torch" in str(missing)


def test_peers_that_train_another_network_are_refused(result):
    step._check_same_network(result["peers"])
    result["peers"]["keras"]["parameters"] = 8
    with pytest.raises(peers.BenchmarkError, match="keras trains 8 .* ours 7"):
        step._check_same_network(result["peers"])


def test_ratio_is_the_median_of_the_rounds_ratios(result):
    assert step.ratio(result, "keras") == 9000 / 4000  # of 2.0, 5.0 and 2.25


def test_share_is_the_median_of_the_rounds_shares(result):
    share = 2000.4 * 1e10 / 8e13  # of that, 1000 · 1e10 / 1e14 and 4000 · 1e10 / 9e13
    assert step.share(result, "keras") == pytest.approx(share)


def test_table(result):
    text = step.markdown(result)
    keras, torch = "2,000 | 1,000 | 4,000", "missing: No module named 'torch'"
    assert cells(text)[:3] == [
        ["ours", "threads 2", "5,000", "4,000", "9,000", "1.00", "50.0%"],
        ["keras", "threads 2", *keras.split(" | "), "2.25", "25.0%"],
        ["torch_eager", torch, *["–"] * 5],
    ]
    assert "**2.25 times** the images/s of the fastest other peer, keras" in text
    assert "90000.0 GFLOP/s (80000.0 to 100000.0)" in text
    assert cells(text)[-1] == [
        "all",
        "4,000,000,000",
        "6,000,000,000",
        "10,000,000,000",
    ]


def test_table_when_all_others_are_missing(result):
    result["peers"]["keras"] = {"missing": "gone"}
    assert "all other peers are missing" in step.markdown(result)


def test_plot_shows_the_peers_that_are_installed(result):
    (axes,) = step.plots(result)["step"].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["ours", "keras"]
    assert [bar.get_width() for bar in axes.patches] == [5000, 2000.4]


# --- environment and files ---


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
    """The program's benchmarks are "a" and "b"."""
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
    assert "## b\n\n3 rounds\n\n## a" in capsys.readouterr().out
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
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == errors.USAGE_ERROR
    assert len(done.stderr.splitlines()) == 1 and word in done.stderr
