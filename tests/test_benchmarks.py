# SPDX-License-Identifier: Apache-2.0
"""Tests of what the benchmarks measure and report, but not of speed."""

import importlib.util
import json
import math
import os
import platform

import pytest
import tensorflow as tf

import models
from benchmarks import flops, ours, peers, step, step_jax, step_peers
from models import batch_norm
from native import compile, toolchain
from system import console
from tests.helpers import ROOT, cells

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
    if speed == 0:
        raise errors.UserError("no luck")
    if speed == -1:
        return lambda s: {"images_per_second": 9 / (s < 10), "parameters": 7}
    return lambda s: {"images_per_second": speed * s, "parameters": 7}

def gemm():
    return lambda s: {"gflops": 10 * s}

def held():
    import os
    return lambda name: os.environ.get(name)

PEERS = {f.__name__: f for f in (double, missing, helpless, failing, broken, gemm)}
PEERS |= {"ours": loop, "keras": loop, "jax": loop, "held": held}
"""


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Name of a module whose peers load no library."""
    (tmp_path / "stand_ins.py").write_text(STAND_INS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "stand_ins"


@pytest.fixture
def result():
    """Results of three rounds, with 1e10 FLOP per image and 1e5 GFLOP/s."""
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


# --- peers ---


def test_a_peer_answers_until_it_is_closed(stand_ins):
    with peers.Peer(stand_ins, "double", {"factor": 3}) as peer:
        assert [peer.ask(4), peer.ask(0.5)] == [12, 1.5]
    assert peer._process.returncode == 0
    peer.close()  # a second time is harmless


def test_a_peer_can_have_further_environment_variables(stand_ins):
    with peers.Peer(stand_ins, "held", {}, step.HELD_TO_AVX2) as peer:
        assert peer.ask(compile.MAX_ISA) == peer.ask("ONEDNN_MAX_CPU_ISA") == "AVX2"
        assert peer.ask("PYTHONPATH")  # and those of ours


@pytest.mark.parametrize(
    "name, reason", [("missing", "no_such_library"), ("helpless", "needs a compiler")]
)
def test_a_missing_peer_is_reported(stand_ins, name, reason):
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


def test_a_killed_peer_is_reported(stand_ins):
    with peers.Peer(stand_ins, "double", {}) as peer:
        peer._process.kill()
        peer._process.wait()
        with pytest.raises(peers.BenchmarkError, match="killed by SIGKILL"):
            peer.ask(1)


# --- FLOPs ---


def test_flops_by_hand():
    assert flops.MULTIPLY_ADDS == {
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


def test_flops_are_those_of_the_network():
    network = models.build("lenet")
    places = {"conv1": 28 * 28, "conv2": 13 * 13}
    counts = {
        name: places.get(name, 1) * int(tf.size(getattr(network, name).w))
        for name in ("conv1", "conv2", "dense1", "dense2", "logits")
    }
    assert flops.MULTIPLY_ADDS == counts


# --- step ---


def test_settings_are_those_of_the_flagfile_with_a_constant_rate():
    config = ours.train_config(threads=3)
    text = (ROOT / "lenet.flags").read_text(encoding="utf-8")
    for name in ("dropout", "batch_norm_decay"):
        assert f"--{name}={getattr(config, name)}\n" in text
    assert (config.batch_norm, config.batch_norm_first) == ("all", False)
    assert config.dropout == step_peers.DROPOUT
    assert config.batch_norm_decay == step_peers.BATCH_NORM_DECAY
    assert batch_norm.EPSILON == step_peers.BATCH_NORM_EPSILON
    assert (config.batch_size, config.threads) == (128, 3)
    assert (config.schedule, config.learning_rate) == ("constant", 1e-3)
    assert (config.weight_decay, config.weight_average) == (0, 0)


def test_every_peer_is_tried_quickly_and_in_full():
    assert set(step_peers.SETTINGS) == set(step_peers.LOOPS) == set(step.QUICK_SETTINGS)
    for peer, count in step.QUICK_SETTINGS.items():
        assert 1 <= count <= len(step_peers.SETTINGS[peer])


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


def test_settings_that_a_peer_fails_with_are_named_and_end_nothing(
    stand_ins, monkeypatch, capsys
):
    monkeypatch.setattr(step, "PEERS", stand_ins)
    good, bad = {"speed": 3}, {"speed": 0}
    settings = {"ours": [good], "keras": [bad, good], "jax": [bad, bad]}
    found = step.compare(settings, rounds=1, seconds=10, turn_seconds=1)
    assert found["peers"]["keras"]["settings"] == good
    assert found["peers"]["jax"]["missing"] == "the peer jax failed: no luck"
    out = capsys.readouterr().out
    assert '{"speed": 0} is left out: the peer keras failed: no luck' in out
    assert "jax is missing: the peer jax failed: " in out
    with pytest.raises(peers.BenchmarkError, match="the peer ours failed"):
        step.compare({"ours": [bad, good]}, rounds=1, seconds=10)


def test_a_peer_that_fails_in_a_round_ends_nothing(stand_ins, monkeypatch, capsys):
    monkeypatch.setattr(step, "PEERS", stand_ins)
    good, late = {"speed": 3}, {"speed": -1}
    settings = {"ours": [good], "keras": [late, good], "jax": [good]}
    found = step.compare(settings, rounds=2, seconds=10, turn_seconds=1)
    assert "division by zero" in found["peers"]["keras"]["missing"]
    assert found["peers"]["jax"]["images_per_second"] == [30, 30]
    assert capsys.readouterr().out.count("keras is missing: ") == 1
    with pytest.raises(peers.BenchmarkError, match="the peer ours failed"):
        step.compare({"ours": [late]}, rounds=1, seconds=10)


def test_the_fastest_settings_are_tried_again():
    some = [{"threads": n} for n in range(4)]
    speeds = [[3, 3, 1], [1, 1, 9], [2, 2, 2], [4, 1, 4]]
    tried = [
        {"settings": one, "images_per_second": values}
        for one, values in zip(some, speeds, strict=True)
    ]
    assert step._fastest({"tried": tried}, some) == [{"threads": 3}, {"threads": 0}]
    assert step._fastest({"tried": []}, some[:1]) == some[:1]
    assert step._fastest({"missing": "no such module"}, some) == some


@pytest.mark.usefixtures("forked_peers")
def test_peers_of_tensorflow_train_the_same_network():
    settings = {"ours": [{"threads": 1}], "keras": step_peers.SETTINGS["keras"][2:3]}
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


@pytest.mark.parametrize("name", ["jax", "keras_jax"])
def test_jax_trains_the_same_network_or_is_missing(name):
    try:
        with peers.Peer(step.PEERS, name, step_peers.SETTINGS[name][0]) as peer:
            assert peer.ask(0)["parameters"] == 212_026
    except peers.Missing as missing:
        assert importlib.util.find_spec("jax") is None and "jax" in str(missing)


def test_flags_of_xla_are_added_to_those_given(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_max_isa=AVX2")
    step_jax.set_flags(multi_thread=False)
    flags = "--xla_cpu_max_isa=AVX2 --xla_cpu_multi_thread_eigen=false"
    assert os.environ["XLA_FLAGS"] == flags


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


@pytest.mark.parametrize(
    "processor, names",
    [
        ("flags : fma avx2 avx512f", ["AVX-512", "AVX2"]),
        ("flags : fma avx2", ["AVX2"]),
        ("Features : asimd", [platform.machine()]),
    ],
)
def test_all_are_measured_with_each_instruction_set(monkeypatch, processor, names):
    monkeypatch.setattr(toolchain, "processor", lambda: processor)
    held = []

    def compare(settings, rounds, seconds, *, environment):
        held.append(environment)
        found = {"rounds": rounds, "seconds": seconds}
        return found | {
            "peers": {name: {"settings": of} for name, of in settings.items()}
        }

    monkeypatch.setattr(step, "compare", compare)
    found = step.measure(3, quick=True)["instruction_sets"]
    assert list(found) == names
    for of_set in found.values():
        assert (of_set["rounds"], of_set["seconds"]) == (3, 1.0)
        for name, count in step.QUICK_SETTINGS.items():
            some = step_peers.SETTINGS[name][:count]
            assert of_set["peers"][name]["settings"] == some
    assert held == [{}, step.HELD_TO_AVX2][: len(names)]


def of_sets(**results):
    return {"instruction_sets": results}


def test_tables_of_two_instruction_sets(result):
    text = step.markdown(of_sets(**{"AVX-512": result, "AVX2": result}))
    assert text.index("### AVX-512") < text.index("### AVX2")
    assert text.count("| keras") == 2 and text.count("| conv1") == 1
    assert "has no AVX-512" not in text


def test_table(result):
    text = step.markdown(of_sets(AVX2=result))
    assert "This processor has no AVX-512." in text
    keras, torch = "2,000 | 1,000 | 4,000", "missing: No module named 'torch'"
    assert cells(text)[1:4] == [
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
    assert "all other peers are missing" in step.markdown(of_sets(AVX2=result))


def test_plot_shows_the_peers_that_are_installed(result):
    (axes,) = step.plots(of_sets(AVX2=result))["step"].axes
    assert axes.get_title() == "AVX2"
    assert [text.get_text() for text in axes.get_yticklabels()] == ["ours", "keras"]
    assert [bar.get_width() for bar in axes.patches] == [5000, 2000.4]
