# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of a network in use measures and reports."""

import json
import math

import cv2
import pytest

from benchmarks import peers, serving
from evaluation import formats
from tests.helpers import cells

STAND_INS = """
from benchmarks import peers, serving

def fast(*, network):
    return lambda count: {"milliseconds": len(network), "seconds": count / 10}

def missing(*, network):
    raise peers.Missing("no converter")

PEERS = dict.fromkeys((serving.READER, "saved_model", "float", "int8"), fast)
PEERS["onnx"] = missing
"""


def test_each_network_is_read_in_each_way_and_what_is_missing_is_named(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "serving_stand_ins.py").write_text(STAND_INS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(
        serving, "photo_seconds", lambda folder: len([*folder.iterdir()])
    )
    found = serving.measure(2, {"a": 20, "bb": 3}, "serving_stand_ins", photos=1)
    assert (found["photos"], found["photo_seconds"]) == (1, [1, 1])
    assert json.loads(json.dumps(found)) == found
    assert found["calls"] == serving.CALLS
    assert list(found["networks"]) == ["a", "bb"]
    assert found["networks"]["bb"]["digits"] == 3
    read_by = found["networks"]["a"]["read_by"]
    assert read_by.pop("onnx") == {"missing": "no converter"}
    measured = {"milliseconds": [1, 1], "seconds": [2.0, 2.0]}
    assert read_by == dict.fromkeys(
        (serving.READER, "saved_model", "float", "int8"), measured
    )
    assert "a, onnx is missing: no converter" in capsys.readouterr().out


def test_every_way_and_format_is_measured():
    assert set(serving.PEERS) == {serving.READER, *formats.FORMATS}


@pytest.mark.usefixtures("forked_peers")
@pytest.mark.parametrize("form", [serving.READER, "float"])
def test_a_network_takes_some_time(form):
    settings = {"network": serving.LENET}
    with peers.Peer("benchmarks.serving", form, settings) as peer:
        found = peer.ask(3)
    assert 0 < found["milliseconds"] < math.inf and 0 < found["seconds"] < math.inf


def test_a_timer_gives_one_digit_again_and_again_then_all_in_batches(monkeypatch):
    monkeypatch.setattr(serving, "BATCH_SIZE", 4)
    counts = []
    serving.timer(lambda images: counts.append(len(images)))(10)
    ones = serving.WARM_UP_CALLS + serving.CALLS
    assert counts == [1] * ones + [4, 4, 4, 2]


def test_a_format_that_cannot_be_written_is_missing(monkeypatch):
    with pytest.raises(peers.Missing, match="chain of known operations"):
        serving.PEERS["int8"](network=serving.ROBUST)
    monkeypatch.setattr(formats, "missing", lambda name: ["tf2onnx", "onnxruntime"])
    with pytest.raises(peers.Missing, match="^no module named tf2onnx and onnxrun"):
        serving.PEERS["onnx"](network=serving.ROBUST)


def test_photos_are_of_the_wanted_size_and_are_read(tmp_path):
    serving.draw_photos(tmp_path, 1, 300_000)
    (path,) = tmp_path.iterdir()
    height, width = cv2.imread(str(path)).shape[:2]
    assert height > width and height * width == pytest.approx(300_000, rel=0.01)
    assert 0 < serving.photo_seconds(tmp_path) < math.inf


def test_a_photo_that_is_not_read_is_an_error(tmp_path):
    with pytest.raises(peers.BenchmarkError, match="did not read its photos: .*no "):
        serving.photo_seconds(tmp_path)


def test_table():
    times = {"milliseconds": [0.5, 0.4, 0.61], "seconds": [2, 1.234, 0.1]}
    network = {"digits": 1000, "read_by": {"float": times, "onnx": {"missing": "gone"}}}
    photos = {"photos": 10, "photo_seconds": [7.25, 6.5, 9]}
    figures = {"calls": 200, "networks": {"a.flags": network}, **photos}
    text = serving.markdown(figures)
    assert "10 photographs" in text and text.endswith(" 7.25 s (6.50–9.00 s).")
    assert text.startswith("## Serving\n") and "the median of 200 calls" in text
    milliseconds, seconds = ["0.50 ms", "0.40–0.61 ms"], ["1.23 s", "0.10–2.00 s"]
    assert cells(text)[1:] == [
        ["a.flags", "float", *milliseconds, "1,000", *seconds],
        ["a.flags", "onnx", "missing: gone", *["–"] * 4],
    ]
