# SPDX-License-Identifier: Apache-2.0
"""Time to accuracy: what is told of a training; how fast it was is never asserted."""

import json
import re
import sys

import pytest

from benchmarks import accuracy, process
from benchmarks.accuracy import Options

TIMES = {
    "data_seconds": 1.0,
    "import_seconds": 4.0,
    "tracing_seconds": 2.0,
    "wall_seconds": 60.0,
}


def trained(peer, seed, *accuracies, planned=None):
    """A result with an epoch of ten seconds for each accuracy."""
    epochs = [
        {"seconds": 10.0 * number, "accuracy": value}
        for number, value in enumerate(accuracies, start=1)
    ]
    planned = planned or len(epochs)
    return {
        "peer": peer,
        "seed": seed,
        "library": "none 1.0",
        "planned_epochs": planned,
        "epochs": epochs,
        **TIMES,
    }


RESULTS = [
    trained("fast99", 0, 0.98, 0.9900),
    trained("fast99", 1, 0.99, 0.9950),
    trained("keras_convnet", 0, 0.98, 0.991, 0.9899, planned=15),
    {"peer": "pytorch_example", "seed": 1, "missing": "No module named 'torch'"},
    {"peer": "fast995", "seed": 0, "failed": "killed by SIGKILL"},
]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    "mark, seconds", [(0.98, 10.0), (0.99, 20.0), (0.9899, 20.0), (0.9951, None)]
)
def test_first_reached_is_the_first_epoch_at_the_mark_or_above(mark, seconds):
    # Below it again later on: first is first.
    epochs = trained("any", 0, 0.985, 0.99, 0.98, 0.995)["epochs"]
    assert accuracy.first_reached(epochs, mark) == seconds


def test_table_adds_the_data_to_the_time_and_tells_never():
    lines = accuracy.table(RESULTS).splitlines()
    table = [cells(line) for line in lines if line.startswith("|")]
    assert table[0][:8] == [
        *("peer", "seed", "epochs", "last accuracy, %", "training, s"),
        *("with data, s", "first 99.0%, s", "first 99.5%, s"),
    ]
    beside = ["1.00", "4.00", "2.00", "60.00"]
    assert table[2:] == [
        ["fast99", "0", "2", "99.00", "20.00", "21.00", "21.00", "never", *beside],
        ["fast99", "1", "2", "99.50", "20.00", "21.00", "11.00", "21.00", *beside],
        # One seed never came to 99.5 %, so there is no mean of the times.
        [
            *("fast99", "mean of 2", "", "99.25", "20.00"),
            *("21.00", "16.00", "never", *beside),
        ],
        [
            *("keras_convnet", "0", "3 of 15", "98.99", "30.00"),
            *("31.00", "21.00", "never", *beside),
        ],
    ]


def test_table_names_what_could_not_be_measured_and_why():
    text = accuracy.table(RESULTS)
    assert "pytorch_example, seed 1: missing: No module named 'torch'" in text
    assert "fast995, seed 0: failed: killed by SIGKILL" in text


def test_table_of_nothing_but_failures():
    assert "killed by SIGKILL" in accuracy.table(RESULTS[-1:])


def test_plot_has_a_line_for_each_training_and_no_leftovers(tmp_path):
    accuracy.plot(RESULTS, tmp_path / "accuracy.svg")
    assert [file.name for file in tmp_path.iterdir()] == ["accuracy.svg"]
    assert "<svg" in (tmp_path / "accuracy.svg").read_text()


def test_plot_of_nothing_but_failures(tmp_path):
    accuracy.plot(RESULTS[-2:], tmp_path / "accuracy.png")
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_stopwatch_counts_while_it_runs(monkeypatch):
    clock = iter([0.0, 1.0, 5.0, 7.0, 20.0, 24.0])
    monkeypatch.setattr(accuracy.time, "perf_counter", lambda: next(clock))
    watch = accuracy.Stopwatch().start()
    watch.stop()
    watch.stop()  # stands still already
    assert watch.seconds == 1
    watch.start()
    assert watch.lap() == 3
    watch.stop()
    assert watch.seconds == 4


@pytest.mark.parametrize(
    "peer, library", [("keras_convnet", "keras"), ("pytorch_example", "torch")]
)
def test_missing_library_is_told(peer, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    found = accuracy.alone(peer, Options())
    assert list(found) == ["missing"]
    assert library in found["missing"]


def test_failing_peer_is_told_in_one_line():
    found = accuracy.run_peer("nonesuch", Options(seed=3))
    assert list(found) == ["peer", "seed", "failed"]
    assert "keras_convnet" in found["failed"]  # what might have been asked for
    assert "\n" not in found["failed"]


@pytest.mark.parametrize("text", ["x", "[]", '{"epoch": 1}'])
def test_options_that_are_none(text):
    with pytest.raises(process.ProcessError, match="expected a JSON object.*dataset"):
        process.run(
            "-m", "benchmarks.accuracy", "--peer=keras_convnet", f"--options={text}"
        )


def test_picture_of_no_known_kind_is_refused_before_anything_is_measured():
    with pytest.raises(process.ProcessError, match=r"expected a name.*\.svg"):
        process.run("-m", "benchmarks.accuracy", "--plot=accuracy.txt")


def check(result, epochs):
    """What any training must tell."""
    assert json.loads(json.dumps(result)) == result
    assert re.match(r"[a-z]+ \d+\.\d+", result["library"])
    assert len(result["epochs"]) == epochs
    seconds = [epoch["seconds"] for epoch in result["epochs"]]
    assert 0 < seconds[0] and seconds == sorted(seconds)
    assert seconds[-1] < result["wall_seconds"]
    assert result["data_seconds"] > 0 and result["import_seconds"] > 0
    assert result["tracing_seconds"] >= 0
    for epoch in result["epochs"]:
        # Above chance, on the 360 digits that are the test set.
        assert 0.2 < epoch["accuracy"] <= 1
        assert epoch["accuracy"] * 360 == pytest.approx(round(epoch["accuracy"] * 360))


def test_an_example_trains_on_a_few_digits():
    pytest.importorskip("keras")
    result = accuracy.run_peer("keras_convnet", Options(epochs=2, dataset="digits"))
    check(result, epochs=2)
    assert result["planned_epochs"] == 15


def test_a_flagfile_trains_on_a_few_digits(tmp_path):
    flagfile = tmp_path / "tiny.flags"
    flagfile.write_text(
        "--network=mlp\n--shift_directions=\n--flip_codes=\n--epochs=3\n"
        "--epoch_images=640\n"
    )
    options = Options(epochs=2, dataset="digits", flagfile=str(flagfile))
    result = accuracy.run_peer("fast99", options)
    check(result, epochs=2)
    assert result["planned_epochs"] == 3
