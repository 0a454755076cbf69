# SPDX-License-Identifier: Apache-2.0
"""Export formats: how each file is written and read back."""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from evaluation import chain, equalise, scoring

ONNX_OPSET = 18

# Images uint8 [N, 28, 28] → classes, integers [N].
Read = Callable[[np.ndarray], np.ndarray]


class Exported(tf.Module):
    """A network with the signature to export."""

    def __init__(self, network: tf.Module):
        super().__init__("exported")
        self.network = network

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None, 28, 28], tf.uint8, name="images")],
    )
    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return _outputs(
            scoring.predict_logits(
                self.network, images[..., tf.newaxis], training=False
            )
        )


def _outputs(logits: tf.Tensor) -> dict[str, tf.Tensor]:
    return {
        "class": tf.argmax(logits, 1, output_type=tf.int32),
        "probabilities": tf.nn.softmax(logits),
    }


class Served(tf.Module):
    """An exported network that takes images as people have them; see `inputs.images`.

    uint8, 0 to 255, or float32 and float64, 0 to 1, which may be whole numbers up to
    255, too; [N, 28, 28] or [N, 28, 28, 1]. A float beyond that is an error.
    """

    def __init__(self, exported: Exported):
        super().__init__("served")
        self.exported = exported
        for dtype in (tf.uint8, tf.float32, tf.float64):
            for shape in ([None, 28, 28], [None, 28, 28, 1]):
                self.__call__.get_concrete_function(
                    tf.TensorSpec(shape, dtype, "images")
                )

    @tf.function(autograph=False)
    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        if images.dtype != tf.uint8:
            images = _to_bytes(images)
        return self.exported(tf.reshape(images, [-1, 28, 28]))


def _to_bytes(images: tf.Tensor) -> tf.Tensor:
    """Floats 0 to 1, or whole numbers 0 to 255, as uint8: see `inputs.images`."""
    highest = tf.reduce_max(tf.concat([tf.reshape(images, [-1]), [0]], 0))
    pixels = tf.where(highest <= 1, tf.round(images * 255), images)
    whole = (pixels >= 0) & (pixels <= 255) & (pixels == tf.round(pixels))
    valid = tf.debugging.Assert(
        tf.reduce_all(whole),
        ["images: expected bytes, 0 to 255, or floats, 0 to 1, where 0 is paper"],
    )
    with tf.control_dependencies([valid]):
        return tf.cast(pixels, tf.uint8)


def _write_saved_model(path: Path, exported: Exported, _: np.ndarray) -> None:
    served = Served(exported)
    signature = exported.__call__.get_concrete_function()
    tf.saved_model.save(served, str(path), signatures={"serving_default": signature})


def _read_saved_model(path: Path) -> Read:
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    return lambda images: signature(images=tf.constant(images))["class"].numpy()


def _converter(
    function: Callable[..., dict[str, tf.Tensor]], dtype: tf.DType, owner: tf.Module
) -> tf.lite.TFLiteConverter:
    """Converter for a function of images [N, 28, 28]."""
    traced = tf.function(
        function,
        autograph=False,
        input_signature=[tf.TensorSpec([None, 28, 28], dtype, name="images")],
    )
    return tf.lite.TFLiteConverter.from_concrete_functions(
        [traced.get_concrete_function()], owner
    )


def _write_float(path: Path, exported: Exported, _: np.ndarray) -> None:
    def function(images):
        logits, _ = exported.network(images[..., tf.newaxis], training=False)
        return _outputs(logits)

    path.write_bytes(_converter(function, tf.uint8, exported).convert())


def _write_int8(path: Path, exported: Exported, calibration: np.ndarray) -> None:
    """Weights, activations, input and output in 8 bits, sums in 32.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2018.
    """
    pixels = calibration.astype(np.float32)
    pixels[0, 0, 0] = 255  # the full range, so that the input scale is 1
    images = pixels[..., np.newaxis]

    def quantise(steps: Sequence[chain.Step]) -> Callable[[np.ndarray], np.ndarray]:
        content = _integer(lambda x: {"x": chain.run(steps, x)}, pixels, tf.float32)
        run = _interpreter(model_content=content).get_signature_runner()
        return lambda images: run(images=images[..., 0].astype(np.uint8))["x"]

    steps = equalise.equalise(chain.read(exported.network), images)
    steps = equalise.correct(steps, images, quantise)
    ranking = equalise.ranking(steps, images)

    def function(x):
        x = chain.run(steps[:-1], x)
        return {
            "class": tf.argmax(ranking(x), 1, output_type=tf.int32),
            "probabilities": tf.nn.softmax(steps[-1](x)),
        }

    path.write_bytes(_integer(function, pixels, tf.uint8))


def _integer(
    function: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    pixels: np.ndarray,
    output: tf.DType,
) -> bytes:
    """A function of images [N, 28, 28, 1] as a TensorFlow Lite file in integers.

    Args:
      function: takes float32, 0 to 255: the converter turns a float input into bytes,
        but would keep a cast from bytes to float.
      pixels: float32 [M, 28, 28], on which the scales are chosen.
      output: uint8, or float32 for the values that the integers stand for.
    """
    converter = _converter(
        lambda images: function(images[..., tf.newaxis]), tf.float32, tf.Module()
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = output
    converter.representative_dataset = lambda: [[pixels]]
    return converter.convert()


def _interpreter(*args: Any, **options: Any) -> tf.lite.Interpreter:
    with warnings.catch_warnings():
        # It will move to the package ai-edge-litert, which reads the same files.
        warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated")
        return tf.lite.Interpreter(*args, num_threads=1, **options)


def _read_lite(path: Path) -> Read:
    run = _interpreter(str(path)).get_signature_runner()
    return lambda images: run(images=images)["class"]


def _write_onnx(path: Path, exported: Exported, _: np.ndarray) -> None:
    import tf2onnx

    function = exported.__call__
    tf2onnx.convert.from_function(
        function, function.input_signature, opset=ONNX_OPSET, output_path=str(path)
    )


def _read_onnx(path: Path) -> Read:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return lambda images: session.run(["class"], {"images": images})[0]


class Format(NamedTuple):
    """An export format."""

    file: str  # its file or folder in the export directory
    # Writes it; the last argument is uint8 [M, 28, 28], digits to calibrate on.
    write: Callable[[Path, Exported, np.ndarray], None]
    read: Callable[[Path], Read]  # loads it
    exact: bool = True  # whether it must classify every digit as the network does
    needs: tuple[str, ...] = ()  # packages that the project does not require


FORMATS = {
    "saved_model": Format("saved_model", _write_saved_model, _read_saved_model),
    "float": Format("float.tflite", _write_float, _read_lite),
    "int8": Format("int8.tflite", _write_int8, _read_lite, exact=False),
    "onnx": Format(
        "model.onnx", _write_onnx, _read_onnx, needs=("tf2onnx", "onnxruntime")
    ),
}


def missing(name: str) -> list[str]:
    """The packages that a format needs and that are missing."""
    return [p for p in FORMATS[name].needs if importlib.util.find_spec(p) is None]
