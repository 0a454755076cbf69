# SPDX-License-Identifier: Apache-2.0
"""Tests of report.html: it is correct, self-contained, and a real browser shows it."""

import html.parser
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from evaluation import activations, corruptions, report, scoring
from evaluation.scoring import Scores
from models import layers, structure
from models.lenet import LeNet
from system.errors import UserError
from tests.browser import CHROMIUM, look_at
from tests.test_report import CONFIG
from training import fed

PHONE, DESKTOP = 360, 1280
VOID = {"br", "img", "link", "meta"}
LONG = "a-run-with-a-name-that-is-far-too-long-for-a-phone-and-has-no-space"
CURVE = {"train": 0.9, "validation": 0.95, "test": 0.94}


class OneLayer(tf.Module):
    """A network whose first layer is dense, with the contract of models/."""

    def __init__(self):
        super().__init__("one_layer")
        self.dense1 = layers.Dense(784, 10, seed=(0, 1), name="dense1")

    def __call__(self, images, *, training, seed=None, taps=None):
        x = layers.flatten(tf.cast(images, tf.float32) / 255)
        taps["dense1"] = x = self.dense1(x)
        return x, []


def make_rows(count, splits):
    return [
        {"epoch": float(epoch), "step": 10.0 * (epoch + 1), "seconds": epoch + 1.0}
        | {"learning_rate": 1e-3}
        | {f"{split}_loss": 1 / (epoch + 1) for split in splits}
        | {f"{split}_accuracy": CURVE[split] + 0.01 * epoch for split in splits}
        for epoch in range(count)
    ]


def make_scores(count, wrong):
    """`count` digits, of which the first `wrong` are classified as the next digit.

    Later errors are closer calls.
    """
    labels = (np.arange(count) % 10).astype(np.uint8)
    probabilities = np.full((count, 10), 0.01, np.float32)
    probabilities[np.arange(count), labels] = 0.91
    for i in range(wrong):
        share = 0.9 - 0.4 * i / wrong
        probabilities[i, (labels[i] + 1) % 10] = share
        probabilities[i, labels[i]] = 0.92 - share
    return Scores(labels, probabilities, 0.25)


def make_many_scores():
    """Two images of each of 299 classes, one wrong, and none of the last class."""
    labels = np.repeat(np.arange(299), 2).astype(np.int16)
    probabilities = np.full((len(labels), 300), 1e-3, np.float32)
    probabilities[np.arange(len(labels)), (labels + np.arange(len(labels)) % 2)] = 0.7
    names = [f"a class with a long name, {n}" for n in range(300)]
    return Scores(labels, probabilities, 0.25, names)


def write(folder, split, rows, scores, network, /, shown=0, **config):
    images = np.random.default_rng(0).integers(
        0, 256, (len(scores.labels), 28, 28, 1), np.uint8
    )
    result = {
        split: scoring.summarise(scores),
        "parameters": 12_345,
        "epochs": len(rows),
        "steps": int(rows[-1]["step"]),
        "scored_epoch": 1 if config.get("keep_best") else len(rows) - 1,
        "finished": True,
        "training_seconds": 572.4,
        "config": {**CONFIG, **config},
        "data": {"test_labels": "f7ae60f9" * 8, '<img src="x">': "0"},
        "version": "0.2.0",
        "begun": "2026-11-29 06:40 UTC",
        "environment": {"commit": "abc123", "onednn": None},
    }
    folder.mkdir(exist_ok=True)
    if shown:
        fed.write(folder, fed.Fed(images[:shown], ["a label"] * shown))
        corrupted = {name: 3 for name in corruptions.CORRUPTIONS} | {"clean": 1}
        found = {"split": "test", "seed": 0, "images": 200, "step": 30}
        path = folder / corruptions.CORRUPTIONS_FILE
        path.write_text(json.dumps({**found, "errors": corrupted}))
    first, _ = activations.compute(network, images, scores)
    layers = structure.layers(network)
    return report.write(folder, split, result, rows, scores, images, first, layers)


class Page(html.parser.HTMLParser):
    """A page's text, tags and attributes; fails on tags that do not match."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words, self._open = [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self._open
        self.text = re.sub(r"\s+", " ", "".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.words.append(" ")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"line {self.getpos()[0]}: </{tag}>"

    def handle_data(self, data):
        if "style" not in self._open:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Three reports and their pictures: everything, the minimum, many classes."""
    folder = tmp_path_factory.mktemp("reports")
    pictures = {
        "full": write(
            folder / "full",
            "test",
            make_rows(3, ("train", "validation", "test")),
            make_scores(300, 120),
            LeNet(),
            shown=40,
            keep_best=True,
        ),
        "least": write(
            folder / "least",
            "validation",
            make_rows(1, ("train", "validation")),
            make_scores(20, 0),
            OneLayer(),
            epochs=1,
        ),
        LONG: write(
            folder / LONG,
            "test",
            make_rows(2, ("train", "test")),
            make_many_scores(),
            LeNet(classes=300),
            epochs=2,
        ),
    }
    return folder, pictures


@pytest.fixture(scope="module")
def pages(written):
    return {name: Page(written[0] / name / report.REPORT) for name in written[1]}


def test_the_page_has_its_figures(pages):
    text = pages["full"].text
    for phrase in (
        "60.00 % accuracy on 300 test digits",
        "120 errors of 300.",
        "95 % interval 54.36 % to 65.38 %",  # 180 of 300, Wilson
        "after epoch 1, the one with the best validation accuracy",
        "9 min 32 s",
        "12,345",
        "30 steps of 64 images",
        "0 as 1, 12 times; 1 as 2, 12 times; 2 as 3, 12 times.",
        "The 100 worst of 120 errors",
        "true 0 (2.0 %) as 1 (90.0 %) no. 0",
        "lenet on mnist, seed 4 · begun 2026-11-29 06:40 UTC",
        "python train.py --seed=4 --epochs=3 --batch_size=64 --keep_best",
        "--shift_directions up,down not up,down,left,right",
        "The first 40 images of the first batch",
        "The 200 test digits with fainter ink",
        "clean 1 99.50 %",
        "ink × 0.4 3 98.50 %",
        "mean, without clean 3 98.50 %",
        "conv1 Conv 13 × 13 × 12 120",
        "dense1 Dense 288 166,176",
        "all 12,345",
        "after its activation and any pooling and batch norm",
        # The right ones share a bin with eleven wrong: |16.2 − 9.717| / 300, and the
        # other wrong ones on their own, 74.483 / 300.
        "Expected calibration error: 26.99 %",
        "lenet-selu 0.2.0, commit abc123. TensorBoard shows the same pictures;"
        " result.json has the scores, metrics.csv the curves, predictions.npz the"
        " probabilities of each digit.",
        "f7ae60f9",
        "abc123",
    ):
        assert phrase in text, phrase
    # Mean confidence of the right ones 0.91, of the wrong ones 0.7 and a little.
    assert re.search(r"Its mean is 82\.\d\d %; the accuracy is 60\.00 %", text)


def test_the_smallest_page_says_what_is_missing(pages):
    text = pages["least"].text
    for phrase in (
        "100.00 % accuracy on 20 held-out digits",
        "0 errors of 20.",
        "No digit was misclassified.",
        "None: all 20 held-out digits were classified correctly.",
        "All 10 units, each drawn as the image",
        "– (this run recorded none)",
    ):
        assert phrase in text, phrase


def test_many_classes_are_summed_up(pages):
    text = pages[LONG].text
    for phrase in (
        f"{LONG} 50.00 % accuracy on 598 test images",
        "over 300 yes-or-no questions per image",
        "a class with a long name, 0 as a class with a long name, 1, 1 time;",
        "The 30 of 300 classes with the lowest F1",
        "All 300 classes",
        "a class with a long name, 299 0 0 0.00 % – ",  # no image, one prediction
        "Only the ten classes that come least close to it are drawn.",
    ):
        assert phrase in text, phrase
    assert len(pages[LONG].source) < 2_000_000


@pytest.mark.parametrize("name", ["full", "least"])
def test_the_page_is_self_contained(pages, name):
    page = pages[name]
    assert page.source.startswith("<!DOCTYPE html>")
    assert [a["lang"] for a in page.all("html")] == ["en"]
    assert "width=device-width" in str(page.all("meta"))
    assert len(page.all("h1")) == 1
    assert not page.all("script")
    pictures = page.all("img")
    assert len(pictures) == 7 + (140 if name == "full" else 0)
    for picture in pictures:
        assert picture["src"].startswith("data:image/")
        assert len(picture["alt"]) > 20
    identifiers = [a["id"] for _, a in page.tags if "id" in a]
    assert len(set(identifiers)) == len(identifiers)
    for link in page.all("a"):
        assert link["href"].removeprefix("#") in identifiers
    assert "url(" not in page.source and "@import" not in page.source
    assert len(page.source) < 2_000_000


def test_text_from_outside_is_escaped(pages):
    assert '<img src="x">' in pages["full"].text
    assert '<img src="x">' not in pages["full"].source


def test_the_pictures_for_tensorboard(written):
    pictures = written[1]
    always = {
        *("calibration", "confidence", "confusion_matrix", "feature_maps", "filters"),
        *("learning_curves", "precision_recall"),
    }
    assert set(pictures["full"]) == always | {"worst_errors"}
    assert set(pictures["least"]) == always
    for picture in (*pictures["full"].values(), *pictures["least"].values()):
        assert picture.dtype == np.uint8 and picture.ndim == 3
        assert picture.shape[2] == 3 and picture.std() > 0


def test_an_unwritable_page_is_reported(tmp_path):
    (tmp_path / report.REPORT).mkdir()  # a folder in the file's place
    with pytest.raises(UserError, match="cannot write .*report.html"):
        write(
            tmp_path, "test", make_rows(1, ("train",)), make_scores(20, 1), OneLayer()
        )
    assert [path.name for path in tmp_path.iterdir()] == [report.REPORT]


# --- in a real browser ---

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@in_a_browser
def test_no_picture_is_broken_and_nothing_overflows(written, tmp_path):
    pages = [written[0] / name / report.REPORT for name in ("full", "least", LONG)]
    found = look_at(tmp_path, pages, (PHONE, DESKTOP))
    assert [f["problems"] for f in found] == 6 * [[]]
    assert sorted((f["width"], f["images"]) for f in found) == [
        *((PHONE, 7), (PHONE, 107), (PHONE, 147), (DESKTOP, 7), (DESKTOP, 107)),
        (DESKTOP, 147),
    ]


@in_a_browser
def test_the_browser_would_notice_a_broken_page(tmp_path):
    page = tmp_path / "broken.html"
    page.write_text(
        '<!DOCTYPE html><html lang="en"><head><title>broken</title></head><body>'
        '<img src="data:image/png;base64,AAAA" alt="of nothing">'
        '<div style="width: 500px">wide</div>'
        '<script>console.error("oops"); nowhere();</script></body></html>',
        encoding="utf-8",
    )
    [found] = look_at(tmp_path, [page], (PHONE,))
    problems = "\n".join(found["problems"])
    for problem in (
        *("broken picture: of nothing", "console: oops", "nowhere is not defined"),
        *("not loaded: IMG", "px wide"),
    ):
        assert problem in problems
