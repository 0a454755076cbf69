# SPDX-License-Identifier: Apache-2.0
"""Exported networks are read back by programs that know nothing of this project."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from evaluation import export, formats, scoring
from models.bn_cnn import BNCNN
from models.double_conv import DoubleConv
from models.lenet import LeNet
from models.mlp import MLP
from system import errors

# What somebody writes who has the exported files and TensorFlow.
SAVED_MODEL = """
import tensorflow as tf
network = tf.saved_model.load("exported/saved_model")
classes = network(digits)["class"].numpy()
"""
LITE = """
import tensorflow as tf
read = tf.lite.Interpreter("exported/{file}").get_signature_runner()
classes = read(images=digits)["class"]
"""
PROGRAM = """
import sys
import numpy as np
digits = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(-1, 28, 28)
for way in {ways}:
    names = {{"digits": digits}}
    exec(way, names)
    print(*names["classes"])
assert not {{"system", "models", "training"}} & set(sys.modules)
"""

LENET = {"batch_norm": "all", "batch_norm_first": False, "kernels": "native"}


@pytest.fixture(scope="module", autouse=True)
def few_calls():
    """Times each format by a few calls: no test depends on the figure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "LATENCY_CALLS", 3)
        yield


@pytest.fixture(scope="module")
def network(digits):
    """A LeNet with batch norm that has learned a little, by plain gradient descent."""
    network = LeNet(**LENET)
    images = tf.constant(digits.train_images[:512])
    labels = tf.constant(digits.train_labels[:512], tf.int32)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits, updates = network(
                images, training=True, seed=tf.zeros([2], "int32")
            )
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        weights = network.trainable_variables
        for weight, gradient in zip(weights, tape.gradient(loss, weights)):
            weight.assign_sub(0.05 * gradient)
        for average, value in updates:
            average.assign(value)

    for _ in range(25):
        step()
    return network


def write(network, path, digits, names=("saved_model", "float", "int8")):
    table, refused = export.export(
        network,
        path,
        names,
        digits.test_images,
        digits.test_labels,
        calibration=digits.train_images,
        facts={"checked_on": "test"},
    )
    return table, refused


@pytest.fixture(scope="module")
def exported(network, digits, tmp_path_factory):
    """A folder with an export in `exported`, and the table."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        # The network has learned a little only: 5 more errors will do, not 1.
        patch.setattr(export, "TOLERANCE", 5 / 360)
        table, refused = write(network, folder / "exported", digits)
    assert not refused
    return folder, table


def own_classes(network, digits):
    logits = scoring.predict_all(scoring.Predict(network), digits.test_images)
    return logits.argmax(1)


def test_export_stores_and_prints_its_checks(exported, network, digits):
    folder, table = exported
    assert [p.name for p in folder.iterdir()] == ["exported"]
    assert {p.name for p in (folder / "exported").iterdir()} == {
        *("saved_model", "float.tflite", "int8.tflite", "export.json")
    }
    stored = json.loads((folder / "exported" / "export.json").read_text())
    assert stored["checked_on"] == "test"
    own, *rows = stored["formats"]
    assert [row["format"] for row in rows] == ["saved_model", "float", "int8"]
    errors = int((own_classes(network, digits) != digits.test_labels).sum())
    assert own["errors"] == errors < 180  # 324 would be chance
    for row in rows[:2]:
        assert (row["errors"], row["read_otherwise"]) == (errors, 0)
        assert row["accuracy"] == pytest.approx(1 - errors / 360)
    assert rows[2]["errors"] <= errors + 5
    assert rows[2]["read_otherwise"] <= 12
    size = (folder / "exported" / "int8.tflite").stat().st_size
    assert rows[2]["bytes"] == size < rows[1]["bytes"] / 3
    assert all(row["milliseconds_for_one"] > 0 for row in rows)
    lines = table.splitlines()
    assert len(lines) == 6 and "differ" in lines[0]
    assert f"{errors}" in lines[3] and "float.tflite" in lines[4]


def test_three_lines_run_the_network_without_this_project(exported, network, digits):
    folder, _ = exported
    ways = [SAVED_MODEL, *(LITE.format(file=f"{n}.tflite") for n in ("float", "int8"))]
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM.format(ways=ways)],
        input=digits.test_images.tobytes(),
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    own = own_classes(network, digits)
    for line, allowed in zip(done.stdout.splitlines(), (0, 0, 8), strict=True):
        assert (np.array(line.split(), int) != own).sum() <= allowed


def test_the_saved_model_has_only_tensorflows_operations(exported):
    folder, _ = exported
    loaded = tf.saved_model.load(str(folder / "exported" / "saved_model"))
    signature = loaded.signatures["serving_default"]
    (images,) = signature.structured_input_signature[1].values()
    assert (images.dtype, images.shape.as_list()) == (tf.uint8, [None, 28, 28])
    assert signature.structured_outputs["class"].dtype == tf.int32
    graph = signature.graph.as_graph_def()
    operations = {node.op for node in graph.node}
    operations |= {n.op for f in graph.library.function for n in f.node_def}
    assert "Conv2D" in operations
    assert all(hasattr(tf.raw_ops, o) or o[0] == "_" for o in operations), operations
    assert not [o for o in operations if "Random" in o or "Grad" in o]


def tensors(path):
    interpreter = tf.lite.Interpreter(str(path))
    return interpreter, interpreter.get_tensor_details()


def test_an_empty_batch_gives_an_empty_answer(exported, network):
    folder, _ = exported
    none = np.zeros([0, 28, 28], np.uint8)
    loaded = tf.saved_model.load(str(folder / "exported" / "saved_model"))
    signature = loaded.signatures["serving_default"]
    for outputs in (loaded(none), signature(tf.constant(none))):
        assert outputs["class"].shape == [0]
        assert outputs["probabilities"].shape == [0, 10]
    predict = scoring.Predict(network)
    assert scoring.predict_all(predict, none[..., np.newaxis]).shape == (0, 10)


def test_the_saved_model_takes_images_as_people_have_them(exported, digits):
    folder, _ = exported
    loaded = tf.saved_model.load(str(folder / "exported" / "saved_model"))
    images = digits.test_images[:20]
    expected = loaded(images[..., 0])["probabilities"].numpy()
    scaled = images / 255
    for given in (
        images,
        scaled,
        scaled.astype(np.float32),
        scaled[..., 0],
        images * 1.0,
    ):
        found = loaded(given)["probabilities"].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert loaded(scaled[:0])["class"].shape == [0]
    for wrong in (scaled - 0.5, images * 1.5, np.full([1, 28, 28], np.nan)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="floats, 0 to 1"):
            loaded(wrong)


def test_int8_uses_integers_throughout(exported):
    folder, _ = exported
    interpreter, details = tensors(folder / "exported" / "int8.tflite")
    kinds = {np.dtype(d["dtype"]).kind for d in details}
    assert kinds <= set("iub") and len(details) > 20
    (images,) = interpreter.get_input_details()
    assert images["dtype"] == np.uint8
    assert images["quantization"] == (1.0, 0)  # a pixel is the byte that it was
    probabilities = interpreter.get_output_details()[1]
    assert probabilities["dtype"] == np.uint8
    assert probabilities["quantization"] == (1 / 256, 0)


def test_float_uses_floats_throughout(exported):
    folder, _ = exported
    interpreter, details = tensors(folder / "exported" / "float.tflite")
    assert np.int8 not in {d["dtype"] for d in details}
    assert [d["dtype"] for d in interpreter.get_output_details()] == [
        *(np.int32, np.float32)
    ]


@pytest.mark.parametrize(
    "other",
    [BNCNN(bn_axis=1), DoubleConv(), MLP(activation="tanh")],
    ids=lambda n: n.name,
)
def test_every_network_can_be_exported(other, digits, tmp_path, monkeypatch):
    # Untrained, so that int8 may read them as it likes.
    monkeypatch.setattr(export, "TOLERANCE", 1)
    monkeypatch.setattr(export, "CALIBRATION_DIGITS", 50)
    write(other, tmp_path / "e", digits)
    _, details = tensors(tmp_path / "e" / "int8.tflite")
    assert np.float32 not in {d["dtype"] for d in details}


@pytest.mark.parametrize(
    "name, message",
    [
        ("float", "float.tflite is not kept: it classifies 360 of 360 digits"),
        ("int8", r"int8.tflite is not kept: it misclassifies \d+ of 360 digits"),
    ],
)
def test_good_formats_are_kept_when_another_fails(
    network, digits, tmp_path, monkeypatch, name, message
):
    form = formats.FORMATS[name]
    right = own_classes(network, digits)

    def read(_):
        # Another network than was asked for: each digit is read as the next one.
        found = iter([(right + 1) % 10])
        return lambda pixels: next(found, right[:1])

    def put(path, *_):
        path.write_text("another network")

    monkeypatch.setitem(formats.FORMATS, name, form._replace(read=read, write=put))
    table, (refused,) = write(network, tmp_path / "e", digits, ["saved_model", name])
    assert re.match(message, refused)
    kept = {p.name for p in (tmp_path / "e").iterdir()}
    assert kept == {"saved_model", "export.json"}
    stored = json.loads((tmp_path / "e" / "export.json").read_text())
    assert [row["format"] for row in stored["formats"][1:]] == ["saved_model"]
    assert stored["refused"] == [refused] and form.file not in table
    with pytest.raises(export.ExportError, match=message):
        write(network, tmp_path / "alone", digits, [name])
    assert [p.name for p in tmp_path.iterdir()] == ["e"]


def test_a_failing_converter_costs_only_its_own_file(
    network, digits, tmp_path, monkeypatch
):
    def fail(path, *_):
        path.mkdir()
        (path / "half").write_text("half")
        raise RuntimeError("Quantization not yet supported for op: 'X'\nstack")

    form = formats.FORMATS["float"]._replace(write=fail)
    monkeypatch.setitem(formats.FORMATS, "float", form)
    _, refused = write(network, tmp_path / "e", digits, ["saved_model", "float"])
    assert refused == [
        "float.tflite is not kept: Quantization not yet supported for op: 'X'"
    ]
    assert not (tmp_path / "e" / "float.tflite").exists()


def test_nothing_is_overwritten(network, digits, tmp_path):
    (tmp_path / "mine").write_text("mine")
    for path in (tmp_path, tmp_path / "mine"):
        with pytest.raises(export.ExportError, match="exists already: choose anot"):
            write(network, path, digits)
    with pytest.raises(export.ExportError, match="cannot write .*Not a directory"):
        write(network, tmp_path / "mine" / "e", digits)
    with pytest.raises(export.ExportError, match="cannot write .*File name too long"):
        export.check(tmp_path / ("e" * 300), ["float"])
    assert (tmp_path / "mine").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    write(network, tmp_path / "empty", digits, ["saved_model"])
    assert (tmp_path / "empty" / "export.json").exists()


def test_only_requested_formats_are_exported(monkeypatch):
    assert export.choose(["int8", "float"]) == ["float", "int8"]
    with pytest.raises(
        errors.UsageError, match="=float16: expected some of saved_model"
    ):
        export.choose(["float", "float16"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert export.choose(None) == ["saved_model", "float", "int8"]


def test_a_missing_converter_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(export.ExportError, match="needs tf2onnx and onnxruntime"):
        export.check(tmp_path / "e", ["onnx"])


def test_onnx_is_written(network, digits, tmp_path):
    if formats.missing("onnx"):
        pytest.skip("the extra onnx is not installed")
    write(network, tmp_path / "e", digits, ["onnx"])
    assert (tmp_path / "e" / "model.onnx").exists()
