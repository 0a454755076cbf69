# SPDX-License-Identifier: Apache-2.0
"""Figures show the numbers that they are given, and survive extreme ones."""

import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest

from evaluation import confusion, figures, mosaics, precision_recall, statistics
from evaluation.scoring import Scores

CONFIDENCES = np.array([1.0, 0.99, 0.98, 0.97, 0.55, 0.35])
HITS = np.array([True, True, True, False, True, False])


def make_rows(count, splits=("train", "test")):
    rows = []
    for epoch in range(count):
        row = {"epoch": float(epoch), "learning_rate": 0.1**epoch}
        for number, split in enumerate(splits):
            row[f"{split}_loss"] = 0.5 / (epoch + 1 + number)
            row[f"{split}_accuracy"] = 1 - 0.1 / (epoch + 1 + number)
        rows.append(row)
    return rows


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_learning_curves_hold_the_rows():
    rows = make_rows(4, ("train", "validation", "test"))
    figure = figures.learning_curves(rows)
    loss, accuracy, rate = figure.axes
    for axes, metric in ((loss, "loss"), (accuracy, "accuracy")):
        assert [line.get_label() for line in axes.lines] == [
            *("training", "validation", "test")
        ]
        for line, split in zip(axes.lines, ("train", "validation", "test")):
            assert line.get_xdata().tolist() == [0, 1, 2, 3]
            assert list(line.get_ydata()) == [row[f"{split}_{metric}"] for row in rows]
    assert list(rate.lines[0].get_ydata()) == [row["learning_rate"] for row in rows]
    assert (loss.get_yscale(), rate.get_yscale()) == ("linear", "log")


@pytest.mark.parametrize("count", [1, 2, 30])
def test_curves_without_validation_or_second_epoch(count):
    figure = figures.learning_curves(make_rows(count))
    assert len(figure.axes[0].lines) == 2
    assert figures.raster(figure).std() > 0


def rate_panel(rates):
    """The drawn panel of the learning rate, and the heights of its points, 0 to 1."""
    rows = make_rows(len(rates))
    for row, rate in zip(rows, rates, strict=True):
        row["learning_rate"] = rate
    figure = figures.learning_curves(rows)
    figures.raster(figure)  # lays it out
    axes = figure.axes[2]
    pixels = axes.transData.transform([(0, rate) for rate in rates])[:, 1]
    return axes, (pixels - axes.bbox.y0) / axes.bbox.height


def test_a_staircase_rate_is_readable():
    # A plateau schedule: halved every third epoch, from 1e-3 to its floor of 1e-5.
    rates = [max(1e-3 * 0.5 ** (epoch // 3), 1e-5) for epoch in range(25)]
    axes, heights = rate_panel(rates)
    assert axes.get_yscale() == "log"
    assert 0.8 < heights[0] < 1 and 0 < heights[-1] < 0.2
    stairs = np.diff(heights)[2:-1:3]
    assert stairs[:6] == pytest.approx(stairs[0]) and stairs[0] < -0.08


@pytest.mark.parametrize(
    "last, ticks",
    [
        (2e-4, [0.0003, 0.001, 0.003]),
        (3e-5, [3e-5, 0.0001, 0.0003, 0.001, 0.003]),
        (3e-6, [1e-5, 0.0001, 0.001]),
    ],
)
def test_ticks_of_a_rate_on_a_log_scale(last, ticks):
    axes, _ = rate_panel([3e-3, last])
    low, high = axes.get_ylim()
    shown = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert shown == pytest.approx(ticks)


@pytest.mark.parametrize(
    "rates",
    [
        [1e-3] * 4,
        [1e-3, 1e-3, 5e-4, 2.5e-4],
        1e-3 * (1 + np.cos(np.pi * np.linspace(1e-6, 1 - 1e-6, 9))) / 2,  # cosine
        [4e-5, 5e-4, 1e-3, 8.5e-4, 5e-4, 1.5e-4, 6e-9],  # one cycle
    ],
)
def test_a_rate_that_ends_at_0_or_hardly_changes_is_drawn_from_0(rates):
    axes, heights = rate_panel(rates)
    assert axes.get_yscale() == "linear"
    assert heights == pytest.approx(np.array(rates) / axes.get_ylim()[1])
    assert 0.8 < heights.max() < 1


def test_the_scored_epoch_is_marked():
    for axes in figures.learning_curves(make_rows(4), scored_epoch=2).axes:
        assert list(axes.lines[-1].get_xdata()) == [2, 2]


@pytest.mark.parametrize("accuracies", [(0.0, 1.0), (1.0, 1.0), (0.9951, 0.9952)])
def test_extreme_accuracies_stay_in_the_panel(accuracies):
    rows = make_rows(2)
    for row, accuracy in zip(rows, accuracies):
        row["train_accuracy"] = row["test_accuracy"] = accuracy
    axes = figures.learning_curves(rows).axes[1]
    low, high = axes.get_ylim()
    assert low < min(accuracies) and max(accuracies) < high
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert ticks


def test_accuracy_axis_is_stretched():
    axes = figures.learning_curves(make_rows(30)).axes[1]
    height = axes.transData.transform([(0, a) for a in (0.8, 0.9, 0.98)])[:, 1]
    # Halving the errors and dividing them by five: log 2 to log 5, roughly.
    assert (height[2] - height[1]) / (height[1] - height[0]) == pytest.approx(
        np.log(5) / np.log(2), rel=0.05
    )


def test_confusion_matrix_has_the_counts():
    matrix = np.diag(np.arange(900, 1000, 10))
    matrix[4, 9], matrix[9, 4], matrix[2, 7] = 5, 12, 1
    axes = confusion.draw(matrix, "0123456789").axes[0]
    placed = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(placed) == 13
    assert (placed[9.5, 4.5], placed[4.5, 9.5], placed[7.5, 2.5]) == ("5", "12", "1")
    assert placed[3.5, 3.5] == "930"
    # Rows go down, and only errors are in colour, the more the darker.
    assert axes.get_ylim() == (10, 0)
    colours = axes.collections[0].get_array()[..., :3]
    saturation = np.ptp(colours, axis=-1)
    brightness = colours.mean(-1)
    assert brightness[9, 4] < brightness[4, 9] < brightness[2, 7]
    assert saturation[matrix < 100][matrix[matrix < 100] > 0].min() > 0.1
    assert saturation[matrix == 0].max() < 0.01
    assert np.diag(saturation).max() < 0.05


def test_confusion_matrix_without_errors():
    figure = confusion.draw(np.diag([3, 0, 5]), "abc")
    assert texts(figure.axes[0]) == ["3", "5"]


def test_confusion_matrix_of_many_classes_has_no_labels():
    matrix = np.zeros([600, 600], int)
    matrix[300, 10], matrix[301, 11] = 2, 3
    axes = confusion.draw(matrix, [f"class {n}" for n in range(600)]).axes[0]
    assert not axes.texts
    assert "class" not in "".join(t.get_text() for t in axes.get_yticklabels())
    # Three classes to a cell: one holds both confusions, and is not lost.
    colours = axes.images[0].get_array()[..., :3]
    assert colours.shape == (200, 200, 3)
    assert np.ptp(colours[100, 3]) > 0.3 > np.ptp(colours[0, 0])


def test_names_of_classes_fit():
    names = ["apple", "a rather long name", "c"]
    axes = confusion.draw(np.diag([3, 0, 5]), names).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["apple", "a rathe…", "c"]


def test_precision_and_recall_by_hand():
    probabilities = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
    positive = np.array([True, False, True, True, False])
    curve = precision_recall.curve("a", probabilities, positive)
    assert curve.precision.tolist() == pytest.approx([1, 2 / 3, 3 / 4, 3 / 5])
    assert curve.recall.tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert curve.corner == 0.75


def test_axes_of_precision_and_recall_show_the_corner():
    precision = np.array([1, 1, 0.99, 0.9])
    recall = np.array([0.2, 0.985, 0.992, 1])
    curves = [precision_recall.Curve("a", precision, recall)]
    axes = precision_recall.draw(curves).axes[0]
    assert axes.get_xlim()[0] == axes.get_ylim()[0] == 0.98
    assert 1 < axes.get_xlim()[1] < 1.001


def test_only_the_worst_classes_have_curves():
    labels = np.arange(24) % 12  # and no image of the class "12"
    probabilities = np.full((24, 13), 0.01, np.float32)
    probabilities[np.arange(24), labels] = 0.8
    probabilities[11] = probabilities[3, ::-1]  # of class 11, read as a 9
    scores = Scores(labels, probabilities, 0.0, [str(n) for n in range(13)])
    curves = precision_recall.worst(scores)
    assert len(curves) == precision_recall.MAX_CURVES
    assert {curves[0].name, curves[1].name} == {"9", "11"}


def test_an_svg_has_colours_for_the_dark():
    figure = confusion.draw(np.diag([3, 0, 5]), "abc")
    text = figures.svg(figure).decode()
    assert "prefers-color-scheme:dark" in text
    assert f": {figures.INK}" not in text and "var(--c0)" in text
    ElementTree.fromstring(text)  # well-formed


def test_reliability_diagram():
    upper, lower = figures.reliability(CONFIDENCES, HITS, bins=10).axes
    points = upper.lines[1]
    assert points.get_xdata() == pytest.approx([0.35, 0.55, 0.985])
    assert points.get_ydata() == pytest.approx([0, 1, 0.75])
    (whiskers,) = [c for c in upper.collections if len(c.get_segments()) == 3]
    ends = [segment[:, 1].tolist() for segment in whiskers.get_segments()]
    expected = [statistics.share_interval(h, n) for h, n in [(0, 1), (1, 1), (3, 4)]]
    assert ends == [pytest.approx(both) for both in expected]
    assert texts(lower) == ["1", "1", "4"]
    assert [bar.get_height() for bar in lower.patches] == [
        *[0] * 3,
        1,
        0,
        1,
        0,
        0,
        0,
        4,
    ]
    # (0.35 + 0.45 + 4 · 0.235) / 6
    assert upper.get_title("left") == "expected calibration error 29.00 %"


def test_confidence_histogram_separates_correct_from_wrong():
    legend = figures.confidence_histogram(CONFIDENCES, HITS).axes[0].get_legend()
    assert [t.get_text() for t in legend.get_texts()] == ["correct: 4", "wrong: 2"]


@pytest.mark.parametrize("right", [True, False])
def test_figures_survive_all_correct_and_all_wrong(right):
    hits = np.full(6, right)
    for draw in (figures.reliability, figures.confidence_histogram):
        assert figures.raster(draw(CONFIDENCES, hits)).std() > 0


def tile(picture, row, column):
    """The middle of a mosaic's tile, without the gaps."""
    side, half = mosaics.TILE + mosaics.GAP, mosaics.GAP // 2
    y, x = row * side + half, column * side + half
    return picture[y : y + mosaics.TILE, x : x + mosaics.TILE]


def test_filters_share_a_symmetrical_scale():
    kernel = np.zeros((3, 3, 1, 5), np.float32)
    kernel[0, 0, 0, 0], kernel[2, 1, 0, 4] = 0.5, -1
    figure = mosaics.filters(kernel)
    picture = figure.axes[0].images[0].get_array()
    assert (figure.axes[1].get_xlim()) == (-1, 1)
    zero = tile(picture, 0, 1)
    assert np.ptp(zero) <= 2 and zero.min() > 240
    positive, negative = tile(picture, 0, 0), tile(picture, 1, 0)
    red, _, blue = positive[5, 5].astype(int)
    assert red > blue + 50
    red, _, blue = negative[-5, mosaics.TILE // 2].astype(int)
    assert blue > red + 50
    assert (tile(picture, 1, 3) == 255).all()  # there are five, in rows of four


@pytest.mark.parametrize("units, rows", [(10, 3), (64, 8), (300, 8)])
def test_units_of_a_dense_layer_are_drawn_as_pictures(units, rows):
    kernel = np.random.default_rng(0).normal(size=(784, units))
    figure = mosaics.filters(kernel)
    height = figure.axes[0].images[0].get_array().shape[0]
    assert height == rows * (mosaics.TILE + mosaics.GAP)


def test_all_zero_weights_are_white():
    figure = mosaics.filters(np.zeros((3, 3, 1, 4)))
    assert figure.axes[0].images[0].get_array().min() > 240


def test_feature_maps_start_with_the_digit():
    images = np.zeros((2, 28, 28, 1), np.uint8)
    images[1, 14:] = 255
    maps = np.zeros((2, 7, 7, 20))
    maps[0, :, :, 2] = 3
    figure = mosaics.feature_maps(images, maps)
    picture = figure.axes[0].images[0].get_array()
    ticks = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert ticks == ["digit", *map(str, range(1, 17))]
    assert (tile(picture, 0, 0) == 255).all()
    assert (tile(picture, 1, 0)[mosaics.TILE // 2 :] == 0).all()
    red, _, blue = tile(picture, 0, 3)[40, 40].astype(int)
    assert red > blue + 50
    assert tile(picture, 1, 3).min() > 240


@pytest.mark.parametrize("shape", [(1, 7, 7, 4), (1, 20)])
def test_all_zero_outputs_are_white(shape):
    images = np.zeros((1, 28, 28, 1), np.uint8)
    figure = mosaics.feature_maps(images, np.zeros(shape, np.float32))
    assert figure.axes[0].images[0].get_array().min() > 240


def test_outputs_of_a_dense_layer_are_one_map_in_unit_order():
    outputs = np.zeros((1, 20))
    outputs[0, 9] = -1  # second row, second of eight columns
    figure = mosaics.feature_maps(np.zeros((1, 28, 28, 1), np.uint8), outputs)
    units = tile(figure.axes[0].images[0].get_array(), 1, 0)
    y, x = np.mean(np.nonzero(units[..., 0] < 200), axis=1)
    assert x / mosaics.TILE == pytest.approx(1.5 / 8, abs=0.02)
    assert y / mosaics.TILE == pytest.approx(1.5 / 3, abs=0.02)


@pytest.mark.parametrize("count, shown", [(1, 1), (7, 7), (40, mosaics.MAX_WORST)])
def test_worst_errors(count, shown):
    images = np.zeros((count, 28, 28, 1), np.uint8)
    figure = mosaics.worst_errors(images, [f"error {i}" for i in range(count)])
    (axes,) = figure.axes
    assert len(axes.images) == shown
    assert [t.get_text() for t in axes.texts] == [f"error {i}" for i in range(shown)]


def test_svg_is_well_formed_reproducible_and_needs_no_font():
    first, again = (figures.svg(figures.learning_curves(make_rows(3))) for _ in "ab")
    assert first == again
    root = ElementTree.fromstring(first)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not list(root.iter("{http://www.w3.org/2000/svg}text"))


def test_raster_and_png():
    pixels = figures.raster(figures.learning_curves(make_rows(3)))
    assert pixels.dtype == np.uint8 and pixels.shape[1:] == (
        round(figures.WIDTH * figures.DPI),
        3,
    )
    pixels[0, 0] = 255, 128, 0
    for picture in (pixels, pixels[..., 0]):
        encoded = np.frombuffer(figures.png(picture), np.uint8)
        decoded = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        if picture.ndim == 3:
            decoded = decoded[..., ::-1]  # OpenCV's order is blue, green, red
        np.testing.assert_array_equal(decoded, picture)
