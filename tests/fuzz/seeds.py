# SPDX-License-Identifier: Apache-2.0
"""Small files for each reader to start from; the first of each kind is valid."""

import io
import json
import struct
from collections.abc import Callable
from gzip import GzipFile, compress
from typing import Any

import numpy as np

from system import cli

Files = list[bytes]

# A flagfile that contains this names its own folder.
OWN_FOLDER = b"OWN_FOLDER"

OUTSIDE = b"OUTSIDE"  # path of a picture outside a tree, in a link of the tree


def idx() -> Files:
    """Two images; three labels, one byte each; the same as 32-bit numbers."""
    pixels = np.arange(2 * 28 * 28).astype(np.uint8)
    return [
        struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28) + pixels.tobytes(),
        struct.pack(">4BI", 0, 0, 8, 1, 3) + bytes([7, 0, 9]),
        struct.pack(">4B2I6i", 0, 0, 12, 2, 3, 2, 7, 1, 0, -1, 9, 300),
    ]


def gzip() -> Files:
    """The same, compressed or to be compressed; one with a file name inside."""
    images, labels, _ = idx()
    named = io.BytesIO()
    with GzipFile("labels", "wb", fileobj=named, mtime=0) as file:
        file.write(labels)
    packed = compress(labels, mtime=0)
    return [b"0" + packed, b"0" + named.getvalue(), b"1" + images, b"2" + labels]


def mapping() -> Files:
    """Letters, as in EMNIST; with a line that is none."""
    return [b"1 65 97\r\n2 66 98\n\n", b"0 48\n1 x\n"]


def csv() -> Files:
    """Kaggle's test.csv and train.csv; files of R, spreadsheets and pandas."""
    pixels = ",".join(f"pixel{i}" for i in range(784))
    row = ",".join(str(i % 256) for i in range(784))
    blank = ",".join("0" * 784)
    names = ",".join(f"{r}x{c}" for c in range(1, 29) for r in range(1, 29))
    text = f'"y",{pixels}'.replace(",", ";")
    zeros = ";0" * 784
    return [
        f"9{pixels}\n{row}\n{blank}\n".encode(),
        f"9label,{pixels}\r\n7,{row}\r\n".encode(),
        f"9label,{pixels}\n3,{blank}\n9,{blank}".encode(),
        f'9"",{names},"class"\n"1",{row},"a,b"\n"2",{blank},""""\n'.encode(),
        f"9\ufeff{text}\r\nA{zeros}\r\n\r\n".encode(),
        f"\x0b7,{row}\n0,{blank}\n".encode(),
    ]


def npz() -> Files:
    """Two images and one, as numpy stores and packs them."""
    images, labels = np.zeros((2, 28, 28), np.uint8), np.array([7, 0])
    stored, packed = io.BytesIO(), io.BytesIO()
    for file, save, x in (
        (stored, np.savez, images),
        (packed, np.savez_compressed, images / 255),
    ):
        save(file, x_train=x, y_train=labels, x_test=x[:1], y_test=labels[:1])
    return [stored.getvalue(), packed.getvalue()]


def folder() -> Files:
    """Trees: after a byte, 1 to normalise the ink, a line for each entry.

    Kinds are a grey picture with a dot, a file, a folder, a link, a pipe.
    """
    return [
        b"0gtrain/a/1.png=\x05\ngtrain/b/1.png=\x05\ngtest/a/2.PNG=\x01\nd.git",
        b"1ga/1.png=\xf0\nga/2.png=\xf1\ngb/1.jpg=\xf0\ngb/2.png=\xf0\nfb/x.txt=y",
        b"0ga/1.png=\1\nga/2.png=\1\nlb=a\nlc=c\nla/3.png=2.png\nla/4.png=OUTSIDE",
        b"0g\xff/1.png=\1\ngb/c/d/e/1.png=\1\nfb/1.png=\nib/2.png\ndb/3.png",
    ]


def grey_png(grey: int) -> bytes:
    """A grey picture of 28×28 pixels; with a dot, if it is very light or dark."""
    from PIL import Image

    pixels = np.full((28, 28), grey, np.uint8)
    if not 16 < grey < 240:
        pixels[9:19, 12:16] += 128
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def flagfile() -> Files:
    """Comments, lists, numbers, quotes; one includes itself, one unsets flags."""
    return [
        b"# a comment\n--network=lenet\n--epochs=3\n\n--flip_labels=0,1,8\n"
        b"--learning_rate=1e-3\n--nobatch_norm_first\n--shift_pixels=2\n",
        b"--flagfile=%s/flagfile\n--seed=2\n" % OWN_FOLDER,
        b"--hidden_units=150,100\n--network\nmlp\n--undefok=x\n--\nrest\n",
        b'\xef\xbb\xbf--run_dir=\'a b\'  # first\r\n"--data_dir=c d"\r--run_dir=""\n',
        b"--batch_norm=conv\n--dropout=0.2\n--unset=batch_norm,dropout\n--seed=1\n",
    ]


def run() -> Files:
    """A short run.json; one without settings."""
    config = {
        **{"dataset": "digits", "early_stopping": 0, "epochs": 3, "keep_best": False},
        **{"loss": "softmax_cross_entropy", "network": "mlp", "split_seed": 0},
        **{"validation_size": 0, "weight_average": 0.5, "hidden_units": [150, 100]},
        **{"batch_size": 128, "schedule": "constant", "seed": 0},
    }
    bare = {"version": cli.VERSION, "config": {}, "data": {}, "environment": {}}
    full = {
        **{"version": cli.VERSION, "config": config, "data": {"a": "00"}},
        **{"environment": {"cores": None}, "resumed": [{"cores": 2}]},
    }
    return _json(full, bare)


def metrics() -> Files:
    """Two epochs; an empty file, as it is when it was just created."""
    header = b"epoch,step,seconds,test_accuracy\n"
    return [header + b"0,469,1.25,0.98\n1,938,2.5,0.99\n", b""]


def manifest() -> Files:
    """The manifest that `readers.manifest` expects; one of another format."""
    sound = {"format": 1, "settings": {"shift_pixels": 1}, "sha256": {"a": "00"}}
    return _json(sound, {**sound, "format": 2})


def checkpoint() -> Files:
    """A manifest without and with its own checksum; one that lacks an entry."""
    from training import manifest

    files = {"state.index": {"bytes": 3, "sha256": "0" * 64}}
    sound = json.loads(manifest.make(files, 1, "", {"loss": 0.5}))
    del sound["sha256"]
    without, lacking = _json(sound, {**sound, "files": {}})
    sealed = manifest.make(files, 1, "", {})
    return [b"1" + without, b"0" + sealed, b"1" + lacking]


def predictions() -> Files:
    """Three predictions as numpy writes them, plain and compressed."""
    seeds = []
    for save in (np.savez, np.savez_compressed):
        content = io.BytesIO()
        probabilities = np.full((3, 10), 0.1, np.float32)
        save(content, labels=np.array([7, 0, 9], np.uint8), probabilities=probabilities)
        seeds.append(content.getvalue())
    return seeds


def result() -> Files:
    """A score on the test set; one on the validation set."""
    score = {"binary_accuracy": 0.99, "errors": 7}
    return _json(
        {"test": score, "finished": True}, {"validation": score, "finished": True}
    )


def tf_config() -> Files:
    """Two workers; a chief with one worker."""
    from training import launch

    chief = {
        "cluster": {"chief": ["a:1"], "worker": ["[::1]:2"]},
        "task": {"type": "worker", "index": "0"},
    }
    return [launch.tf_config([20000, 20001], 1).encode(), *_json(chief)]


def worker() -> Files:
    """A greeting; both answers to it."""
    greeting = {"number": 1, "workers": ["a:1", "b:2", "c:3"]}
    lines = _json(greeting, {"missing": [1, 2]}, {"missing": []})
    return [line + b"\n" for line in lines]


def events() -> Files:
    """Two records: both kept, one cut off; two to be made from their content."""
    records = record(b"one") + record(b"two")
    return [
        struct.pack("<H", len(records)) + b"0" + records,
        struct.pack("<H", len(records) - 1) + b"0" + records,
        struct.pack("<H", 38) + b"1one\ntwo",
    ]


def record(content: bytes) -> bytes:
    """An event as TensorBoard stores it."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    length = struct.pack("<Q", len(content))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, content)]
    return length + sums[0] + content + sums[1]


def journal() -> Files:
    """Two shards; one whose line is cut off."""
    first, last = _json(*({"shard": n, "sha256": {"a": "00"}} for n in (0, 2)))
    return [first + b"\n" + last + b"\n", first[:20]]


def photo() -> Files:
    """A stroke in each format; rotated, transparent, 16 bits deep, with a palette."""
    from PIL import Image

    stroke = np.full((20, 24), 230, np.uint8)
    stroke[4:16, 9:12] = 20
    grey = Image.fromarray(stroke)
    clear = Image.merge("LA", [grey, Image.fromarray(255 - stroke)])
    exif = Image.Exif()
    exif[0x0112] = 6
    seeds = []
    pictures: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((grey, kind, {}) for kind in ("PNG", "JPEG", "BMP", "TIFF")),
        (clear.convert("RGBA"), "WEBP", {"lossless": True, "exif": exif}),
        (clear, "PNG", {"exif": exif}),
        (grey.convert("CMYK"), "JPEG", {"exif": exif}),
        (grey.convert("RGB"), "TIFF", {"compression": "tiff_lzw", "exif": exif}),
        (Image.fromarray(stroke.astype(np.uint16) * 257), "PNG", {}),
        (grey.convert("P"), "PNG", {"transparency": 1}),
    ]
    for image, kind, options in pictures:
        content = io.BytesIO()
        image.save(content, kind, **options)
        seeds.append(content.getvalue())
    return seeds


def _json(*values: dict[str, Any]) -> Files:
    return [json.dumps(value).encode() for value in values]


SEEDS: dict[str, Callable[[], Files]] = {
    seed.__name__: seed
    for seed in (
        *(idx, gzip, mapping, csv, npz, folder),
        *(flagfile, run, metrics, manifest, checkpoint, predictions),
        *(result, tf_config, worker, events, journal, photo),
    )
}
