# SPDX-License-Identifier: Apache-2.0
"""Tests of training/summaries.py, as TensorBoard reads it."""

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from evaluation import scoring
from models.lenet import LeNet
from training import summaries

EPOCHS = (0, 1)
SPLITS = ("train", "validation", "test")


def read(folder):
    """Reads a folder: {tag: {step: value}}, and whether there is a graph."""
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    values = {}
    for tag in accumulator.Tags()["tensors"]:
        points = accumulator.Tensors(tag)
        values[tag] = {p.step: tf.make_ndarray(p.tensor_proto) for p in points}
    return values, accumulator.Tags()["graph"]


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """All summaries of a run of two epochs of 100 images, read back."""
    run_dir = tmp_path_factory.mktemp("run")
    network = LeNet(batch_norm="conv")
    images = np.zeros((10, 28, 28, 1), np.uint8)
    taps: dict[str, tf.Tensor] = {}
    network(tf.constant(images), training=False, taps=taps)
    with summaries.Summaries(run_dir, SPLITS) as log:
        log.start({"epochs": 2, "schedule": "cosine"})
        log.graph(scoring.Predict(network).graph.as_graph_def())
        log.steps(10, dict.fromkeys(summaries.STEP_SCALARS, 0.5))
        for epoch in EPOCHS:
            row: dict[str, float] = {"epoch": epoch, "images": 100 * (epoch + 1)}
            for number, split in enumerate(SPLITS):
                row[f"{split}_loss"] = number + epoch / 2
                row[f"{split}_accuracy"] = number + epoch / 4
            row["test_binary_accuracy"] = 0.125
            log.epoch(row)
            log.fed(epoch, images)
            norms = [0.5] * len(network.trainable_variables)
            pairs = zip(network.trainable_variables, norms)
            log.network(epoch, network, pairs, taps)
            log.errors(epoch, "test", np.full((5, 6, 1), epoch, np.uint8))
            log.flush()
    score = {"accuracy": 0.75, "errors": 9, "loss": 0.5, "binary_accuracy": 0.25}
    score["training_seconds"] = 1.5
    picture = {"filters": np.full((5, 6, 3), 7, np.uint8)}
    summaries.write_score(run_dir, 10, "two\nlines", score, picture)
    return {folder: read(run_dir / folder) for folder in (*SPLITS, summaries.FINAL)}


def test_grid_by_hand():
    images = np.arange(7, dtype=np.uint8)[:, None, None, None]
    picture = summaries.grid(np.tile(images, (1, 28, 28, 1)), 3)
    assert picture.shape == (1, 3 * 28, 3 * 28, 1)
    rows = [[0, 1, 2], [3, 4, 5], [6, 0, 0]]
    assert picture[0, ::28, ::28, 0].tolist() == rows
    assert picture[0, 27::28, 27::28, 0].tolist() == rows


def test_grid_keeps_each_image_upright():
    image = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)
    picture = summaries.grid(image, 2)
    np.testing.assert_array_equal(picture[0, 28:, :28], image[2])


@pytest.mark.parametrize(
    "number, split", [(0, "train"), (1, "validation"), (2, "test")]
)
def test_each_split_has_both_axes(events, number, split):
    values, _ = events[split]
    for axis, steps in (("epoch", [0, 1]), ("images", [100, 200])):
        assert sorted(values[f"loss/by_{axis}"]) == steps
        assert [values[f"loss/by_{axis}"][s] for s in steps] == [number, number + 0.5]
        accuracies = [values[f"accuracy/by_{axis}"][s] for s in steps]
        assert accuracies == [number, number + 0.25]


def test_binary_accuracy_is_written_if_known(events):
    assert events["test"][0]["binary_accuracy/by_epoch"] == {0: 0.125, 1: 0.125}
    for split in ("train", "validation"):
        assert "binary_accuracy/by_epoch" not in events[split][0]


def test_step_scalars_are_written_at_their_step(events):
    values, _ = events["train"]
    for name in summaries.STEP_SCALARS:
        assert values[f"{name}/by_step"] == {10: 0.5}
    assert not [tag for tag in events["test"][0] if tag.endswith("by_step")]


def test_the_start_has_flags_graph_and_images(events):
    values, graph = events["train"]
    assert graph
    text = values["flags"][0].item().decode()
    assert "| `--epochs` | `2` |" in text and "| `--schedule` | `cosine` |" in text
    assert sorted(values["batch_as_fed"]) == list(EPOCHS)


def test_network_summaries_are_per_layer_and_epoch(events):
    values, _ = events["train"]
    wanted = {
        *(f"activations/{layer}" for layer in ("conv1", "conv2", "dense1", "dense2")),
        *("activations/logits", "weights/conv1/w", "weights/logits/b"),
        *("weights/norm1/scale", "batch_norm_averages/norm2/variance"),
        *("gradient_norms/dense1/w", "weight_norms/dense2/b"),
    }
    assert wanted <= set(values)
    assert not [tag for tag in values if "lenet" in tag or ":" in tag]
    assert "weights/norm1/mean" not in values
    for tag in wanted:
        assert sorted(values[tag]) == list(EPOCHS), tag


def test_errors_are_written_after_each_epoch(events):
    pictures = events["test"][0]["errors"]
    for epoch in EPOCHS:
        _, _, png = pictures[epoch]
        assert (tf.io.decode_png(png).numpy() == epoch).all()
    assert len(pictures) == len(EPOCHS)
    assert "errors" not in events["validation"][0]


def test_the_chart_layout_names_written_tags(events):
    values, _ = events["train"]
    content = values["custom_scalars__config__"][0].item()
    (category,) = layout_pb2.Layout.FromString(content).category
    tags = [tag for chart in category.chart for tag in chart.multiline.tag]
    assert tags == ["^accuracy/by_epoch$", "^loss/by_epoch$", "^learning_rate/by_step$"]
    assert {tag.strip("^$") for tag in tags} <= set(values)


def test_the_final_score_is_written(events):
    values, _ = events["final"]
    assert values["final/accuracy"] == {10: 0.75}
    assert values["final/errors"] == {10: 9}
    assert values["final/loss"] == {10: 0.5}
    assert values["final/binary_accuracy"] == {10: 0.25}
    assert values["final/training_seconds"] == {10: 1.5}
    width, height, png = values["final/filters"][10]
    assert (width, height) == (b"6", b"5")
    assert (tf.io.decode_png(png).numpy() == 7).all()
    assert values["final/tables"][10].item().decode() == "    two\n    lines"


def test_only_requested_splits_have_folders(tmp_path):
    with summaries.Summaries(tmp_path, ["train", "validation"]) as log:
        log.epoch(
            {"epoch": 0, "images": 9, "train_loss": 1, "train_accuracy": 1}
            | {"validation_loss": 1, "validation_accuracy": 1}
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train", "validation"]


def test_a_score_replaces_the_one_before(tmp_path):
    for accuracy in (0.5, 0.75):
        score = dict.fromkeys(summaries.FINAL_SCALARS, accuracy)
        summaries.write_score(tmp_path, 9, "", score, {})
    values, _ = read(tmp_path / "final")
    assert values["final/accuracy"] == {9: 0.75}
    assert len(list((tmp_path / "final").iterdir())) == 1


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=(7, 5, 40)).astype(np.float32),
        np.arange(31.0),
        np.full(4, 2.5),
        np.array([1.0, np.inf]),
        np.empty(0),
    ],
    ids=["many", "edges", "one value", "infinite", "none"],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of TensorBoard's, at infinity
def test_histograms_equal_those_of_tensorboard(values):
    found = summaries._histogram("weights", "a", values)
    about = summaries.NETWORK_SUMMARIES["weights"]
    expected = summaries.histogram_pb(
        "weights/a", values, summaries.HISTOGRAM_BUCKETS, about
    )
    assert found.SerializeToString() == expected.SerializeToString()
