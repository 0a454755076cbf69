# SPDX-License-Identifier: Apache-2.0
"""What TensorBoard gets of a finished run, and that its page shows it."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from evaluation import dashboard, gallery, scoring, tensorboard
from models.mlp import MLP
from training import summaries

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CONFIG = {"network": "mlp", "hidden_units": [64, 3], "epochs": 2, "width": None}
CONFIG |= {"keep_best": False, "learning_rate": 0.5}


def make_scores(wrong=(2, 5)):
    """Seven digits, some of them misread as the next one."""
    labels = np.array([3, 1, 4, 1, 5, 9, 2], np.uint8)
    read = labels.astype(int)
    read[list(wrong)] = (read[list(wrong)] + 1) % 10
    probabilities = np.full((7, 10), 0.01, np.float32)
    probabilities[np.arange(7), read] = 0.91
    return scoring.Scores(labels, probabilities, 0.5)


def write(run_dir, learning_rate=0.5):
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)
    config = {**CONFIG, "learning_rate": learning_rate}
    result = {"config": config, "steps": 20, "training_seconds": 1.5}
    network = MLP(hidden_units=[64, 3])
    tensorboard.write(run_dir, "test", result, make_scores(), images, network)
    return images, network


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return events


def test_the_flags_are_hyperparameters(tmp_path):
    write(tmp_path / "mlp-s0")
    events = read(tmp_path / "mlp-s0" / "final")
    metadata = events.SummaryMetadata("_hparams_/session_start_info")
    content = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    info = content.session_start_info
    assert info.group_name == "mlp-s0"
    stored = {
        name: getattr(value, value.WhichOneof("kind"))
        for name, value in info.hparams.items()
    }
    assert stored == {
        **{"network": "mlp", "hidden_units": "64,3", "epochs": 2.0},
        **{"keep_best": False, "learning_rate": 0.5},
    }


def test_a_second_score_takes_the_place_of_the_first(tmp_path):
    write(tmp_path)
    write(tmp_path)
    events = read(tmp_path / "final")
    (point,) = events.Tensors("final/training_seconds")
    assert (point.step, tf.make_ndarray(point.tensor_proto)) == (20, 1.5)
    assert len(events.Tensors("is_it_a_3/pr_curves")) == 1


def test_precision_and_recall_by_hand(tmp_path):
    write(tmp_path)
    events = read(tmp_path / "final")
    tags = [tag for tag in events.Tags()["tensors"] if "pr_curves" in tag]
    assert sorted(tags) == [f"is_it_a_{digit}/pr_curves" for digit in range(10)]
    (point,) = events.Tensors("is_it_a_5/pr_curves")
    curve = tf.make_ndarray(point.tensor_proto)
    # At a threshold of one half: the 5 is found, the 4 is called a 5.
    assert curve[:, tensorboard.THRESHOLDS // 2].tolist() == [1, 1, 5, 0, 0.5, 1]
    assert "corner" in events.SummaryMetadata(tags[0]).summary_description


def test_the_layout_has_tags_that_are_written(tmp_path):
    tensorboard.write_layout(tmp_path)
    (point,) = read(tmp_path / "final").Tensors("custom_scalars__config__")
    content = tf.make_ndarray(point.tensor_proto).item()
    (category,) = layout_pb2.Layout.FromString(content).category
    tags = [chart.multiline.tag[0].strip("^$") for chart in category.chart]
    assert tags == ["accuracy/by_epoch", "loss/by_epoch", "learning_rate/by_step"]
    written = {f"{name}/by_step" for name in summaries.STEP_SCALARS}
    written |= {f"{name}/by_epoch" for name in summaries.EPOCH_SCALARS}
    assert set(tags) <= written


def test_the_projector_has_points_labels_and_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "MOST_POINTS", 5)
    images, network = write(tmp_path)
    folder = tmp_path / "final"
    header, *rows = (folder / "digits.tsv").read_text().splitlines()
    assert header.split("\t") == ["true", "read", "verdict", "index"]
    # Both that are misread, and the first of the others.
    assert rows == [
        *("3\t3\tright\t0", "1\t1\tright\t1", "4\t5\t4 read as 5\t2"),
        *("1\t1\tright\t3", "9\t0\t9 read as 0\t5"),
    ]
    shown = images[[0, 1, 2, 3, 5]]
    taps: dict[str, tf.Tensor] = {}
    network(tf.constant(shown), training=False, taps=taps)
    points = np.loadtxt(folder / "points.tsv", delimiter="\t")
    assert points.shape == (5, 3)
    np.testing.assert_allclose(points, list(taps.values())[-2], rtol=1e-3)
    sprite = cv2.imread(str(folder / "digits.png"), cv2.IMREAD_GRAYSCALE)
    assert sprite.shape == (3 * 28, 3 * 28)
    np.testing.assert_array_equal(sprite[28:56, 28:56], 255 - shown[4, ..., 0])
    assert (sprite[56:] == 255).all()
    config = (folder / "projector_config.pbtxt").read_text()
    assert str(tmp_path) not in config and "points.tsv" in config


def test_the_gallery_shows_the_surest_errors_first(tmp_path):
    scores = make_scores()
    scores.probabilities[5, 0] = 0.95
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)
    picture = gallery.draw(images, scores)
    assert (picture.dtype, picture.shape) == (np.uint8, (5 * 72, 8 * 56, 1))
    tiles = picture[:56:2, :168:2, 0].reshape(28, 3, 28).transpose(1, 0, 2)
    np.testing.assert_array_equal(tiles[:2], 255 - images[[5, 2], ..., 0])
    assert (picture[:, 112:] == 255).all()
    assert (picture[56:72, :56] < 255).any()  # its caption
    assert (gallery.draw(images, make_scores(wrong=())) == 255).all()
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        gallery.write(tf.summary.create_file_writer(str(tmp_path)), 3, images, scores)
    assert read(tmp_path).Tensors("errors")[0].step == 3


def test_every_tag_says_what_to_look_for(tmp_path):
    write(tmp_path)
    with summaries.Summaries(tmp_path, ["train"]) as log:
        network = MLP(hidden_units=[3])
        images = np.zeros((10, 28, 28, 1), np.uint8)
        log.start({}, scoring.Predict(network).graph, images)
        log.steps(1, dict.fromkeys(summaries.STEP_SCALARS, 0.5))
        log.epoch({"epoch": 0, "images": 1, "train_loss": 1, "train_accuracy": 1})
        norms = [0.5] * len(network.trainable_variables)
        log.network(0, network, norms, {"dense1": tf.zeros([3])})
    for folder in ("train", "final"):
        events = read(tmp_path / folder)
        for tag in events.Tags()["tensors"]:
            if not tag.startswith(("_hparams_", "custom_scalars__")):
                assert len(events.SummaryMetadata(tag).summary_description) > 30, tag


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """TensorBoard's address over two runs, and their folder."""
    folder = tmp_path_factory.mktemp("runs")
    for number in (0, 1):
        run_dir = folder / f"mlp-s{number}"
        write(run_dir, learning_rate=0.5 + number)
        with summaries.Summaries(run_dir, ["train"]) as log:
            row = {"images": 1, "train_loss": 1, "train_accuracy": 1}
            for epoch in range(3):
                log.epoch({"epoch": epoch, **row})
    return dashboard.serve(folder), folder


def get(address, path):
    with urllib.request.urlopen(urllib.parse.urljoin(address, path)) as answer:
        return json.load(answer)


def test_the_dashboard_listens_here_and_knows_the_runs(page):
    address, folder = page
    assert urllib.parse.urlparse(address).hostname == "localhost"
    assert address.endswith("#custom_scalars")
    wanted = {f"mlp-s{n}/{part}" for n in (0, 1) for part in ("final", "train")}
    assert set(get(address, "data/runs")) == wanted
    layout = get(address, "data/plugin/custom_scalars/layout")
    assert len(layout["category"][0]["chart"]) == 3
    assert set(get(address, "data/plugin/projector/runs")) == {
        *("mlp-s0/final", "mlp-s1/final")
    }


def test_a_port_in_use_is_one_line(page):
    _, folder = page
    with socket.create_server(("localhost", 0)) as taken:
        with pytest.raises(
            dashboard.DashboardError, match="port .*leave --on_port out"
        ):
            dashboard.serve(folder, taken.getsockname()[1])


def test_nothing_to_show_is_one_line(tmp_path):
    with pytest.raises(
        dashboard.DashboardError, match="holds no run .*train one first"
    ):
        dashboard.serve(tmp_path)


# Each tab, and what its page says when it shows these runs.
TABS = {
    "custom_scalars": ("What to look at first", "Loss against epoch", "mlp-s1/train"),
    "hparams": ("learning_rate", "mlp-s0", "mlp-s1"),
    "pr_curves": ("is_it_a_0", "mlp-s1/final"),
    "projector": ("dense2, before the logits", "Points: 7"),
    "timeseries": ("by_epoch", "mlp-s0/train"),
}
BANNERS = ("No dashboards are active", "There’s no dashboard", "data was found")

# The words of a page, those in shadow trees and in frames too.
WORDS = """
(function words(node) {
  const parts = node.shadowRoot ? [words(node.shadowRoot)] : [];
  for (const child of node.childNodes) {
    if (child.nodeType === 3) parts.push(child.data);
    else if (child.contentDocument) parts.push(words(child.contentDocument.body));
    else if (!["SCRIPT", "STYLE"].includes(child.nodeName)) parts.push(words(child));
  }
  return parts.join(" ");
})(document.body)
"""


class Chromium:
    """A browser that is spoken to by pipes; a context manager."""

    def __init__(self, folder: Path):
        reading, self.commands = os.pipe()
        self.answers, writing = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
        options += ["--no-first-run", "--disable-background-networking"]
        options += ["--disable-component-update", "--disable-sync"]
        options += [f"--user-data-dir={folder}", "--window-size=1280,900"]
        # Which wants its ends as files 3 and 4.
        redirected = f'exec "$0" "$@" 3<&{reading} 4>&{writing}'
        self.process = subprocess.Popen(
            ["bash", "-c", redirected, CHROMIUM, *options, "--remote-debugging-pipe"],
            pass_fds=(reading, writing),
            stderr=subprocess.DEVNULL,
        )
        os.close(reading)
        os.close(writing)
        self.received, self.count = b"", 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ask("Browser.close")
        self.process.wait(30)
        os.close(self.commands)
        os.close(self.answers)

    def ask(self, method, session=None, **params):
        """What the browser answers to a command of its debugging protocol."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.received:
                assert (read := os.read(self.answers, 1 << 16)), "the browser has ended"
                self.received += read
            answer, _, self.received = self.received.partition(b"\0")
            if (answer := json.loads(answer)).get("id") == self.count:
                return answer["result"]

    def words(self, address, wanted, seconds=60):
        """What a page says once it says all that is wanted, or after some time."""
        target = self.ask("Target.createTarget", url=address)["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        session, end = attached["sessionId"], time.monotonic() + seconds
        while True:
            done = self.ask("Runtime.evaluate", session, expression=WORDS)
            words = " ".join(str(done["result"].get("value")).split())
            if all(w in words for w in wanted) or time.monotonic() > end:
                self.ask("Target.closeTarget", targetId=target)
                return words
            time.sleep(0.2)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("no Chromium")
    with Chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.mark.parametrize("tab", sorted(TABS))
def test_the_page_shows_the_runs(page, browser, tab):
    address, _ = page
    said = browser.words(urllib.parse.urljoin(address, f"#{tab}"), TABS[tab])
    for words in TABS[tab]:
        assert words in said, said[:2000]
    for words in BANNERS:
        assert words not in said


def test_a_banner_would_be_seen(page, browser):
    address = urllib.parse.urljoin(page[0], "#nonsense")
    assert BANNERS[1] in browser.words(address, BANNERS[1:2])
