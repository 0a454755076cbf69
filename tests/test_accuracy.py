# SPDX-License-Identifier: Apache-2.0
"""Tests of what the accuracy benchmark measures and reports, but not of speed."""

import dataclasses
import json
import re

import pytest

from benchmarks import accuracy, examples, peers
from system import errors
from tests.helpers import cells

TIMES = {"data_seconds": 1.0, "import_seconds": 4.0, "tracing_seconds": 2.0}


def trained(peer, seed, *accuracies, **times):
    """A training with one epoch of ten seconds per accuracy."""
    epochs = [
        {"seconds": 10.0 * number, "accuracy": value}
        for number, value in enumerate(accuracies, start=1)
    ]
    named = {"peer": peer, "seed": seed, "library": "none 1.0"}
    return {**named, "epochs": epochs, "wall_seconds": 60.0, **times}


FAILED = {"peer": "fast995", "seed": 0, "failed": "killed by SIGKILL"}
RESULT = {
    "trainings": [
        trained("fast99", 0, 0.98, 0.9900),
        trained("fast99", 1, 0.99, 0.9950),
        trained("keras_convnet", 0, 0.98, 0.991, 0.9899, **TIMES),
        {"peer": "pytorch_example", "seed": 1, "missing": "No module named 'torch'"},
        FAILED,
    ]
}


@pytest.mark.parametrize(
    "mark, seconds", [(0.98, 10.0), (0.99, 20.0), (0.9899, 20.0), (0.9951, None)]
)
def test_first_reached_is_the_first_epoch_at_the_mark_or_above(mark, seconds):
    # A later epoch below the mark does not matter.
    epochs = trained("any", 0, 0.985, 0.99, 0.98, 0.995)["epochs"]
    assert accuracy.first_reached(epochs, mark) == seconds


def test_table_shows_marks_never_reached_and_unknown_times():
    text = accuracy.markdown(RESULT)
    assert text.startswith("## Time to accuracy\n\n|")
    table = cells(text)
    assert table[0] == [
        *("peer", "seed", "epochs", "last accuracy, %", "training, s"),
        *("first 99.0%, s", "first 99.5%, s"),
        *("data, s", "imports, s", "tracing, s", "process, s"),
    ]
    ours = ["–", "–", "–", "60.00"]
    assert table[1:] == [
        ["fast99", "0", "2", "99.00", "20.00", "20.00", "never", *ours],
        ["fast99", "1", "2", "99.50", "20.00", "10.00", "20.00", *ours],
        # One seed never reached 99.5 %, so the times have no mean.
        ["fast99", "mean of 2", "", "99.25", "20.00", "15.00", "never", *ours],
        [
            *("keras_convnet", "0", "3", "98.99", "30.00", "20.00", "never"),
            *("1.00", "4.00", "2.00", "60.00"),
        ],
    ]


def test_failures_are_named_with_their_reason():
    lines = accuracy.markdown(RESULT).splitlines()
    assert "pytorch_example, seed 1: missing: No module named 'torch'" in lines
    assert "fast995, seed 0: killed by SIGKILL" in lines
    alone = accuracy.markdown({"trainings": [FAILED]})
    assert "killed by SIGKILL" in alone and "|" not in alone


def test_plot_has_a_line_for_each_training_and_each_mark():
    (axes,) = accuracy.plots(RESULT)["accuracy"].axes
    assert len(axes.lines) == 3 + len(accuracy.MARKS)
    assert list(axes.lines[1].get_xdata()) == [10, 20]
    assert list(axes.lines[1].get_ydata()) == pytest.approx([1, 0.5])
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["fast99", "keras_convnet"]


def test_plot_without_trainings():
    (axes,) = accuracy.plots({"trainings": [FAILED]})["accuracy"].axes
    assert axes.get_legend() is None


def test_rounds_are_the_seeds_of_ours(monkeypatch, capsys):
    monkeypatch.setattr(accuracy, "train", lambda peer, seed: trained(peer, seed, 0.5))
    found = accuracy.measure(rounds=2)["trainings"]
    assert [(one["peer"], one["seed"]) for one in found] == [
        *(("fast99", 0), ("fast99", 1), ("fast995", 0), ("fast995", 1)),
        *(("keras_convnet", 0), ("pytorch_example", 1)),
    ]
    assert {one["peer"] for one in found} == set(examples.PEERS)
    assert "fast99, seed 1: 50.00% after 10.0 s" in capsys.readouterr().out


def test_stopwatch_counts_only_while_it_runs(monkeypatch):
    clock = iter([0.0, 1.0, 5.0, 7.0, 20.0, 24.0])
    monkeypatch.setattr(examples.time, "perf_counter", lambda: next(clock))
    watch = examples.Stopwatch().start()
    watch.stop()
    watch.stop()  # has stopped already
    assert watch.seconds == 1
    watch.start()
    assert watch.lap() == 3
    watch.stop()
    assert watch.seconds == 4


def test_a_missing_library_is_reported(monkeypatch, tmp_path):
    # As if it were not installed: the peer's process finds this first.
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = accuracy.train("pytorch_example", seed=3)
    assert found == {"peer": "pytorch_example", "seed": 3, "missing": "no torch here"}


def test_a_failing_peer_is_reported_in_one_line():
    found = accuracy.train("fast99", seed=3, nonsense=1)
    assert list(found) == ["peer", "seed", "failed"]
    assert "nonsense" in found["failed"] and "\n" not in found["failed"]


def test_a_failing_run_is_reported_with_its_message(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "PROJECT", tmp_path)
    program = "import sys\nprint('epoch 0', file=sys.stderr)\nsys.exit('no luck')"
    (tmp_path / "train.py").write_text(program)
    with pytest.raises(peers.BenchmarkError, match="^no luck$"):
        examples.ours(flagfile="any.flags")(0)


def test_digits_without_labels_are_refused(monkeypatch):
    digits = examples.data.load("digits")
    unlabelled = dataclasses.replace(digits, test_labels=None)
    monkeypatch.setattr(examples.data, "load", lambda name: unlabelled)
    with pytest.raises(errors.UserError, match="no labels"):
        examples.keras_convnet(dataset="digits")


def check(training, epochs):
    """Checks results that every training must have."""
    assert json.loads(json.dumps(training)) == training
    assert re.match(r"[a-z]+ \d+\.\d+", training["library"])
    assert len(training["epochs"]) == epochs
    seconds = [epoch["seconds"] for epoch in training["epochs"]]
    assert 0 < seconds[0] and seconds == sorted(seconds)
    assert seconds[-1] < training["wall_seconds"]
    for epoch in training["epochs"]:
        # Above chance, on the 360 digits that are the test set.
        assert 0.2 < epoch["accuracy"] <= 1
        assert epoch["accuracy"] * 360 == pytest.approx(round(epoch["accuracy"] * 360))


@pytest.mark.usefixtures("forked_peers")
@pytest.mark.parametrize("peer, epochs", [("keras_convnet", 2), ("pytorch_example", 1)])
def test_an_example_trains_on_a_few_digits(peer, epochs, monkeypatch):
    # For PyTorch: on a busy machine, its threads would wait for each other.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    training = accuracy.train(peer, seed=0, epochs=epochs, dataset="digits")
    if "missing" in training:
        assert peer == "pytorch_example" and "torch" in training["missing"]
        return
    check(training, epochs)
    assert training["data_seconds"] > 0 and training["import_seconds"] > 0
    assert training["tracing_seconds"] >= 0


def test_a_flagfile_trains_on_a_few_digits(tmp_path):
    flagfile = tmp_path / "tiny.flags"
    flagfile.write_text(
        "--network=mlp\n--shift_directions=\n--flip_codes=\n--epochs=3\n"
        "--epoch_images=640\n"
    )
    settings = {"dataset": "digits", "flagfile": str(flagfile)}
    check(accuracy.train("fast99", seed=0, epochs=2, **settings), epochs=2)
