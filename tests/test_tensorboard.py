# SPDX-License-Identifier: Apache-2.0
"""Tests of what TensorBoard gets from a finished run, and of its page."""

import json
import os
import shutil
import socket
import urllib.parse
import urllib.request

import cv2
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from evaluation import activations, dashboard, gallery, scoring, tensorboard
from models.mlp import MLP
from tests import programs
from tests.browser import CHROMIUM, Chromium
from tests.helpers import command
from training import summaries

CONFIG = {"network": "mlp", "hidden_units": [64, 3], "epochs": 2, "width": None}
CONFIG |= {"keep_best": False, "learning_rate": 0.5, "flip_codes": []}
PARTS = ("final", "test", "train")


def make_scores(wrong=(2, 5)):
    """Seven digits, some of them misclassified as the next one."""
    labels = np.array([3, 1, 4, 1, 5, 9, 2], np.uint8)
    read = labels.astype(int)
    read[list(wrong)] = (read[list(wrong)] + 1) % 10
    probabilities = np.full((7, 10), 0.01, np.float32)
    probabilities[np.arange(7), read] = 0.91
    return scoring.Scores(labels, probabilities, 0.5)


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """Events of the score of seven digits, read back."""
    run_dir = tmp_path_factory.mktemp("run")
    tabs = tensorboard.tabs("mlp-s0", "test", CONFIG, make_scores())
    summary = dict.fromkeys(summaries.FINAL_SCALARS, 0.5)
    summaries.write_score(run_dir, 20, "", summary, {}, tabs)
    return read(run_dir / "final")


def test_the_flags_are_hyperparameters(events):
    metadata = events.SummaryMetadata("_hparams_/session_start_info")
    content = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    info = content.session_start_info
    assert info.group_name == "mlp-s0"
    stored = {
        name: getattr(value, value.WhichOneof("kind"))
        for name, value in info.hparams.items()
    }
    assert stored == {
        **{"network": "mlp", "hidden_units": "64,3", "epochs": 2.0, "flip_codes": ""},
        **{"keep_best": False, "learning_rate": 0.5},
    }


def test_flags_without_effect_are_not_hyperparameters():
    config = {"schedule": "step", "decay_epochs": 5, "plateau_floor": 1e-5}
    config |= {"flip_codes": [], "flip_labels": ["0"], "split_seed": 3}
    config |= {"shift_directions": ["up"], "shift_pixels": 2, "validation_size": 0}
    config |= {"batch_norm_first": True}  # of a damaged run, without batch_norm
    assert tensorboard.hyperparameters(config) == {
        **{"schedule": "step", "decay_epochs": 5, "flip_codes": ""},
        **{"shift_directions": "up", "shift_pixels": 2, "validation_size": 0},
    }


def test_decay_is_shown_for_networks_that_always_normalise():
    config = {"batch_norm": None, "batch_norm_decay": 0.99, "batch_norm_first": None}
    assert tensorboard.hyperparameters(config) == {"batch_norm_decay": 0.99}


CONFIGURED = """
import json
from config import define_flags
from absl.flags import FLAGS
define_flags()
print(json.dumps({name: getattr(FLAGS[name].parser, "enum_values", None)
                  for name in FLAGS}))
"""


def test_conditions_for_hyperparameters_name_real_flags():
    known = json.loads(programs.run(["-c", CONFIGURED]).stdout)
    for name, (other, values) in tensorboard.NEEDS.items():
        assert name in known and other in known
        assert set(values) <= set(known[other] or ())


def test_precision_and_recall_by_hand(events):
    tags = [tag for tag in events.Tags()["tensors"] if "pr_curves" in tag]
    assert sorted(tags) == [
        f"precision_recall/is_it_a_{digit}/pr_curves" for digit in range(10)
    ]
    (point,) = events.Tensors("precision_recall/is_it_a_5/pr_curves")
    curve = tf.make_ndarray(point.tensor_proto)
    # At a threshold of one half: the 5 is found, the 4 is called a 5.
    assert curve[:, tensorboard.THRESHOLDS // 2].tolist() == [1, 1, 5, 0, 0.5, 1]
    assert "corner" in events.SummaryMetadata(tags[0]).summary_description


def test_many_classes_have_no_curves_of_their_own():
    names = [str(n) for n in range(tensorboard.MAX_CURVES + 1)]
    probabilities = np.eye(len(names), dtype=np.float32)[:2]
    scores = scoring.Scores(np.array([0, 1]), probabilities, 0.0, names)
    assert len(list(tensorboard.tabs("mlp-s0", "test", CONFIG, scores))) == 1


def project(folder, images, network):
    _, last = activations.compute(network, images, make_scores())
    tensorboard.write_projector(folder, make_scores(), images, last)


@pytest.mark.parametrize("limit, value", [("MAX_POINTS", 5), ("MAX_VALUES", 5 * 3 + 2)])
def test_the_projector_has_points_labels_and_pictures(
    tmp_path, monkeypatch, limit, value
):
    monkeypatch.setattr(activations, limit, value)
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)
    network = MLP(hidden_units=[64, 3])
    project(tmp_path, images, network)
    header, *rows = (tmp_path / "digits.tsv").read_text().splitlines()
    assert header.split("\t") == ["true", "predicted", "verdict", "index"]
    # Both misclassified ones, and the first of the others.
    assert rows == [
        *("3\t3\tcorrect\t0", "1\t1\tcorrect\t1", "4\t5\t4 as 5\t2"),
        *("1\t1\tcorrect\t3", "9\t0\t9 as 0\t5"),
    ]
    shown = images[[0, 1, 2, 3, 5]]
    taps: dict[str, tf.Tensor] = {}
    network(tf.constant(shown), training=False, taps=taps)
    points = np.loadtxt(tmp_path / "points.tsv", delimiter="\t")
    assert points.shape == (5, 3)
    np.testing.assert_allclose(points, list(taps.values())[-2], rtol=1e-3)
    sprite = cv2.imread(str(tmp_path / "digits.png"), cv2.IMREAD_GRAYSCALE)
    assert sprite.shape == (3 * 28, 3 * 28)
    np.testing.assert_array_equal(sprite[28:56, 28:56], 255 - shown[4, ..., 0])
    assert (sprite[56:] == 255).all()
    config = (tmp_path / "projector_config.pbtxt").read_text()
    assert str(tmp_path) not in config and "points.tsv" in config


def test_the_projector_shows_images_for_a_network_of_one_layer(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)
    network = MLP(hidden_units=[])
    project(tmp_path, images, network)
    points = np.loadtxt(tmp_path / "points.tsv", delimiter="\t")
    np.testing.assert_array_equal(points, images.reshape(7, 784))


def test_the_gallery_shows_the_most_confident_errors_first():
    scores = make_scores()
    scores.probabilities[5, 0] = 0.95
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)
    picture = gallery.draw(images, scores)
    assert (picture.dtype, picture.shape) == (np.uint8, (3 * 72, 8 * 56, 1))
    tiles = picture[:56:2, :168:2, 0].reshape(28, 3, 28).transpose(1, 0, 2)
    np.testing.assert_array_equal(tiles[:2], 255 - images[[5, 2], ..., 0])
    assert (picture[:, 112:] == 255).all()
    assert (picture[56:72, :56] < 255).any()  # its caption
    assert (gallery.draw(images, make_scores(wrong=())) == 255).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of two runs, with two short epochs each."""
    folder = tmp_path_factory.mktemp("runs")
    for network, rate in (("lenet", "1e-3"), ("mlp", "2e-3")):
        arguments = ["train.py", "--dataset=digits", "--epochs=2", "--log_steps=5"]
        arguments += ["--shift_directions=", "--flip_codes=", "--epoch_images=1280"]
        arguments += [f"--network={network}", f"--learning_rate={rate}"]
        # The report's pictures of one run are enough.
        arguments += [f"--run_dir={folder / network}"]
        command(*arguments, check=True, report=network == "lenet")
    return folder


def test_every_tag_says_what_to_look_for(folder):
    for part in PARTS:
        events = read(folder / "lenet" / part)
        tags = events.Tags()["tensors"]
        assert len(tags) > 5
        for tag in tags:
            if not tag.startswith(("_hparams_", "custom_scalars__")):
                assert len(events.SummaryMetadata(tag).summary_description) > 30, tag


@pytest.fixture(scope="module")
def page(folder):
    """Address of TensorBoard for these runs."""
    return dashboard.serve(folder)


def get(address, path):
    with urllib.request.urlopen(urllib.parse.urljoin(address, path)) as answer:
        return json.load(answer)


def test_the_dashboard_listens_locally_and_knows_the_runs(page):
    assert urllib.parse.urlparse(page).hostname == "localhost"
    assert page.endswith(dashboard.TAB)
    parts = [f"{run}/{part}" for run in ("lenet", "mlp") for part in PARTS]
    assert sorted(get(page, "data/runs")) == sorted(parts)
    layout = get(page, "data/plugin/custom_scalars/layout")
    assert [len(category["chart"]) for category in layout["category"]] == [3]
    assert get(page, "data/plugin/projector/runs") == ["lenet/final", "mlp/final"]


def test_a_port_in_use_gives_one_line(folder):
    with socket.create_server(("localhost", 0)) as taken:
        with pytest.raises(
            dashboard.DashboardError, match="port .*leave --on_port out"
        ):
            dashboard.serve(folder, taken.getsockname()[1])


def test_a_pipe_among_the_events_gives_one_line(tmp_path):
    (tmp_path / "train").mkdir()
    os.mkfifo(tmp_path / "train" / "events.out.tfevents.1.v2")
    with pytest.raises(dashboard.DashboardError, match="tfevents.1.v2 is a pipe"):
        dashboard.serve(tmp_path)


def test_nothing_to_show_gives_one_line(tmp_path):
    with pytest.raises(
        dashboard.DashboardError, match="holds no run .*train one first"
    ):
        dashboard.serve(tmp_path)


# Each tab, and what its page says when it shows these runs.
TABS = {
    "custom_scalars": ("What to look at first", "Loss by epoch", "mlp/train"),
    "distributions": ("activations/conv1", "lenet/train"),
    "graphs": ("Fit to screen", "lenet/train", "part_step", "optimizer", "schedule"),
    "histograms": ("activations/conv1", "lenet/train"),
    "hparams": ("learning_rate", "final/errors", "mlp"),
    "images": ("tag: batch_as_fed", "tag: errors", "lenet/test"),
    "pr_curves": ("precision_recall/is_it_a_0", "mlp/final"),
    "projector": ("dense2, before the logits", "Points: 360"),
    "scalars": ("accuracy/by_epoch", "mlp/train"),
    "timeseries": ("by_epoch", "lenet/train"),
}
BANNERS = ("No dashboards are active", "There’s no dashboard", "data was found")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("no Chromium")
    with Chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.mark.parametrize("tab", sorted(TABS))
def test_the_page_shows_the_runs(page, browser, tab):
    said = browser.words(urllib.parse.urljoin(page, f"#{tab}"), TABS[tab])
    for words in TABS[tab]:
        assert words in said, said[:2000]
    for words in BANNERS:
        assert words not in said


def test_many_runs_are_all_selected(folder, browser, tmp_path):
    """TensorBoard itself selects none of more than 40 folders."""
    for number in range(21):
        for part in ("test", "train"):
            shutil.copytree(folder / "mlp" / part, tmp_path / f"s{number}" / part)
    address = dashboard.serve(tmp_path)
    assert address.endswith(f"/{dashboard.ALL}")
    # Each of the charts has no match before its data arrives.
    said = browser.words(address, ("Matches (42)", "s20/train"), ("Matches (0)",))
    assert "Matches (42)" in said and "Matches (0)" not in said, said[:2000]


def test_a_banner_would_be_noticed(page, browser):
    address = urllib.parse.urljoin(page, "#nonsense")
    assert BANNERS[1] in browser.words(address, BANNERS[1:2])
