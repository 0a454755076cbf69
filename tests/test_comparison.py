# SPDX-License-Identifier: Apache-2.0
"""Tests of evaluation/comparison.py, with runs that are written, not trained."""

import json

import numpy as np
import pytest

from evaluation import comparison, comparison_page, predictions, recipes
from evaluation.scoring import Scores
from system import cli, errors
from tests.browser import CHROMIUM, look_at
from training import history
from training.runs import RunError

LABELS = np.arange(100, dtype=np.uint8) % 10
CONFIG = {"seed": 0, "epochs": 2, "network": "lenet", "flip_codes": ["1"]}


@pytest.fixture
def make_run(tmp_path):
    """make_run(name, wrong digits, flags) → a scored run's directory."""

    def make(
        name, wrong=(), labels=LABELS, data="ab", split="test", finished=True, **flags
    ):
        run_dir = tmp_path / name
        run_dir.mkdir(parents=True)
        run = {"config": {**CONFIG, **flags}, "data": {"images": data}}
        run |= {"version": cli.VERSION, "environment": {}}
        (run_dir / "run.json").write_text(json.dumps(run))
        read = labels.copy()
        read[list(wrong)] = (read[list(wrong)] + 1) % 10
        probabilities = np.eye(10, dtype=np.float32)[read]
        scores = Scores(labels, probabilities, 0.5)
        predictions.write(run_dir, scores)
        summary = {"binary_accuracy": scores.binary_accuracy, "errors": len(wrong)}
        scored = {split: summary, "finished": finished, **run}
        (run_dir / "result.json").write_text(json.dumps(scored))
        return run_dir

    return make


def row(text, *beginning):
    """Cells of the only line of a table that starts with these words."""
    lines = [line.split() for line in text.splitlines()]
    (found,) = [cells for cells in lines if cells[: len(beginning)] == [*beginning]]
    return found


# --- runs and recipes ---


def test_seeds_make_a_recipe(make_run):
    folders = [
        make_run("lenet-s10", seed=10),
        make_run("mlp-s0", network="mlp"),
        make_run("lenet-s0"),
    ]
    groups = recipes.group([recipes.read(folder) for folder in folders])
    assert list(groups) == ["lenet", "mlp"]
    assert [run.seed for run in groups["lenet"]] == [0, 10]


@pytest.mark.parametrize(
    "one, other, names",
    [
        ("lenet-s0", "mlp_seed0", ["lenet", "mlp"]),
        ("lenet-s1", "mlp0", ["lenet-s1", "mlp0"]),  # these are not seed 0
        ("s0", "-s0", ["s0", "-s0"]),
        ("old/lenet-s0", "new/lenet-s0", ["{}/old/lenet", "{}/new/lenet"]),
        ("lenet-s0", "lenet.s0", ["{}/lenet-s0", "{}/lenet.s0"]),
    ],
)
def test_names_of_recipes(make_run, tmp_path, one, other, names):
    folders = [make_run(one), make_run(other, network="mlp")]
    groups = recipes.group([recipes.read(folder) for folder in folders])
    assert list(groups) == [name.format(tmp_path) for name in names]


def test_differences_name_flags_and_values(make_run):
    one = recipes.read(make_run("one", learning_rate=0.1, epochs=3))
    other = recipes.read(make_run("other", seed=1, flip_codes=[], epochs=3))
    line = recipes.differences({"one": [one], "other": [other]})
    assert line == (
        "one | other differ in: --flip_codes (1 | none),"
        " --learning_rate (0.1 | 0.001)."
    )


# --- the text ---


def test_two_networks(make_run):
    a, b = make_run("a-s0", range(6)), make_run("b-s0", range(5, 19), network="mlp")
    text = str(comparison.compare([a, b]))
    assert row(text, "a", "0") == ["a", "0", "6", "94.000", "–", "98.800"]
    # Wilson of 86 in 100
    assert row(text, "b-s0", "14") == ["b-s0", "14", "86.00", "77.86", "to", "91.47"]
    assert "errors of 100    test accuracy %" in text
    assert "a | b differ in: --network (lenet | mlp)." in text
    assert "13 digits are classified correctly by a-s0 alone, 5 by b-s0 alone." in text
    # 2 · Σ C(18, 0 … 5) of 2¹⁸ = 25,232 / 262,144
    assert (
        "a-s0 makes fewer errors than b-s0, 6 against 14;\nthe difference is not"
        " significant at 5 % (p = 0.096)." in text
    )
    assert "two seeds or more of each recipe" in text
    assert "Welch" not in text and "Holm" not in text


def test_two_networks_that_differ_beyond_chance(make_run):
    text = str(comparison.compare([make_run("a", range(10)), make_run("b", seed=1)]))
    assert "b makes fewer errors than a, 0 against 10" in text
    assert "is significant at 5 % (p = 0.002)." in text  # 2 of 2¹⁰
    assert "differ in" not in text  # two seeds of one recipe
    # A wrong digit is two wrong answers in ten: 98 % and 100 %.
    expected = "a 0, 1 10, 0 95.000 ± 7.071 31.469 to 100.000 99.000 ± 1.414"
    assert row(text, "a", "0,") == expected.split()


def test_p_is_never_printed_as_0(make_run):
    labels = np.zeros(2000, np.uint8)
    runs = [make_run("a", range(2000), labels), make_run("b", (), labels, seed=1)]
    assert "is significant at 5 % (p < 1e-307)." in str(comparison.compare(runs))


def test_equal_networks(make_run):
    text = str(comparison.compare([make_run("a", [1]), make_run("b", [2], seed=1)]))
    assert "a and b make equally many errors, 1." in text


def test_two_recipes(make_run):
    folders = [
        make_run("a-s0", range(2)),
        make_run("a-s1", range(4), seed=1),
        make_run("b-s0", range(30, 50), network="mlp"),
        make_run("b-s1", range(30, 53), network="mlp", seed=1),
    ]
    text = str(comparison.compare(folders))
    assert row(text, "a", "0,")[:7] == ["a", "0,", "1", "2,", "4", "97.000", "±"]
    pairs = [(a, b) for a in ("a-s0", "a-s1") for b in ("b-s0", "b-s1")]
    alone = [["20", "2"], ["23", "2"], ["20", "4"], ["23", "4"]]
    rows = [row(text, *pair) for pair in pairs]
    assert [cells[2:4] for cells in rows] == alone
    assert [cells[-1] for cells in rows] == ["a-s0", "a-s0", "a-s1", "a-s1"]
    # Within a recipe no pair is tested.
    assert ["a-s0", "a-s1"] not in [line.split()[:2] for line in text.splitlines()]
    p, adjusted = ([float(cells[column]) for cells in rows] for column in (4, 5))
    assert min(adjusted) == pytest.approx(4 * min(p), rel=0.05)
    assert max(adjusted) == pytest.approx(max(p), rel=0.05)
    # Welch: variances of the means 1 and 2.25, t = 18.5 / √3.25 = 10.26
    assert "a makes fewer errors than b, 3 against 21.5" in text
    assert "is significant at 5 % (p = 0.01" in text


def test_three_recipes_have_tables_of_both_tests(make_run):
    folders = [
        make_run(
            f"{name}-s{seed}", range(4 * number + seed), seed=seed, epochs=number + 1
        )
        for number, name in enumerate("abc")
        for seed in range(2)
    ]
    text = str(comparison.compare(folders))
    assert row(text, "a", "c")[2:4] == ["0.5", "8.5"]
    assert row(text, "b-s1", "c-s0")[2:4] == ["3", "0"]
    assert row(text, "b-s1", "c-s0")[-1] == "–"
    assert "a | b | c differ in: --epochs (1 | 2 | 3)." in text


def test_too_many_pairs_are_left_out_with_a_note(make_run):
    folders = [make_run(f"a-s{seed}", [seed], seed=seed) for seed in range(9)]
    assert "36 pairs of networks" in str(comparison.compare(folders))
    eight = str(comparison.compare(folders[:8]))
    assert row(eight, "a-s0", "a-s1")[2:5] == ["1", "1", "1"]


# --- refusals ---


def refused(error, *run_dirs):
    with pytest.raises(error) as caught:
        comparison.compare(run_dirs)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_fewer_than_two_runs_are_refused(make_run):
    for run_dirs in ([], [make_run("a")]):
        message = refused(errors.UsageError, *run_dirs)
        assert "python eval.py --compare RUN RUN" in message
    assert errors.UsageError.exit_code == 2


def test_folders_without_runs_or_scores_are_refused(make_run, tmp_path):
    a, b = make_run("a"), make_run("b", seed=1)
    assert "holds no run" in refused(RunError, a, tmp_path / "nowhere")
    for name in ("result.json", "predictions.npz"):
        content = (b / name).read_bytes()
        for damage in (b"{}", None):
            (b / name).unlink()
            if damage:
                (b / name).write_bytes(damage)
            message = refused(RunError, a, b)
            assert f"{b / name} is " in message
            assert f"python eval.py --run_dir={b}" in message
        (b / name).write_bytes(content)
    comparison.compare([a, b])
    whole = json.loads((b / "result.json").read_bytes())
    for damage in ({"finished": None}, {"test": {}}, {"test": []}):
        (b / "result.json").write_text(json.dumps(whole | damage))
        assert "result.json is missing, damaged" in refused(RunError, a, b)


@pytest.mark.parametrize("errors", ["-1", "1.5", "true", "1e400", "NaN", '"1"'])
def test_impossible_error_counts_are_refused(make_run, errors):
    a, b = make_run("a", {1}), make_run("b", {1}, seed=1)
    path = b / "result.json"
    path.write_text(path.read_text().replace('"errors": 1', f'"errors": {errors}'))
    assert "result.json is missing, damaged" in refused(RunError, a, b)


def test_a_result_without_predictions_is_refused(make_run):
    a, b = make_run("a", {1}), make_run("b", {1, 2}, seed=1)
    (b / "predictions.npz").write_bytes((a / "predictions.npz").read_bytes())
    message = refused(RunError, a, b)
    assert f"{b / 'result.json'} has 2 errors, but predictions.npz" in message
    assert f"python eval.py --run_dir={b}" in message


def test_the_same_run_twice_is_refused(make_run):
    a = make_run("a")
    assert "the same directory" in refused(RunError, a, a / ".." / "a")
    assert "would count twice" in refused(RunError, a, make_run("copy"))


@pytest.mark.parametrize(
    "other, what",
    [
        ({"data": "cd"}, "have different data"),
        ({"split": "validation"}, "different digits, test and validation"),
        (
            {"labels": LABELS[::-1].copy()},
            "the same --split_seed and --validation_size",
        ),
        ({"labels": LABELS[:99]}, "the same --split_seed and --validation_size"),
    ],
)
def test_runs_on_other_digits_are_refused(make_run, other, what):
    a, b = make_run("a"), make_run("b", seed=1, **other)
    message = refused(RunError, a, b)
    assert what in message and f"{a} and {b}" in message


def test_an_unfinished_run_is_refused(make_run):
    # Early stopping may come yet, and is no excuse.
    a, b = make_run("a"), make_run("b", finished=False, early_stopping=3)
    message = refused(RunError, a, b)
    assert f"{b} was scored before its training was finished" in message
    assert f"python train.py --flagfile={b / 'flags.txt'}" in message


# --- the page ---


def test_the_page_has_curves_tables_and_tests(make_run, tmp_path):
    folders = [
        make_run("lenet-s0", [1, 2]),
        make_run("mlp<b>-s0", [3], network="mlp"),
        make_run("mlp<b>-s1", [4], network="mlp", seed=1),
    ]
    compared = comparison.compare(folders)
    path = tmp_path / "compare.html"
    with pytest.raises(RunError, match="has no test curves to draw"):
        comparison_page.write(path, compared)
    assert not path.exists()
    for folder in folders:
        rows = [
            {"epoch": n, "step": n + 1, "images": 100 * n + 100, "seconds": 1.0}
            | {"test_loss": 1 / (n + 1), "test_accuracy": 0.9}
            for n in range(3)
        ]
        history.write(folder, rows)
    comparison_page.write(path, compared)
    page = path.read_text(encoding="utf-8")
    assert page.count("<table ") == sum(not isinstance(p, str) for p in compared.parts)
    assert "mlp&lt;b&gt;" in page and "<b>" not in page  # names are no markup
    assert "McNemar" in page and "data:image/svg+xml" in page
    assert "http" not in page.replace("data:image/svg+xml", "")
    if CHROMIUM:
        [found] = look_at(tmp_path, [path], (360,))
        assert not found["problems"]
