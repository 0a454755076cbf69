# SPDX-License-Identifier: Apache-2.0
"""Each reader of outside bytes as a function of bytes, and sound files to begin with.

`read(content)` returns nothing: either what the reader returns has been checked to be
what it promises, or it raises `errors.UserError` of one line. Everything else is a
finding. A new reader is a function of its own and a line in `READERS`.
"""

import contextlib
import gzip
import io
import json
import math
import os
import socket
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from system import cli, console, errors, untrusted


class Reader(NamedTuple):
    """Attributes:
    read: takes the content of a file, as this module says.
    seeds: returns the contents of sound files, small ones.
    """

    read: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


# Of a process; removed at its end. In memory where that is to be had: a disk flushes
# a file that is emptied and written again, which takes longer than all the rest.
_SHM = Path("/dev/shm")
_FOLDER = tempfile.TemporaryDirectory(
    prefix="fuzz-", dir=_SHM if os.access(_SHM, os.W_OK) else None
)


def _file(name: str, content: bytes) -> Path:
    path = Path(_FOLDER.name, name)
    path.write_bytes(content)
    return path


def _idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def _digits(count: int) -> np.ndarray:
    return np.arange(count * 28 * 28, dtype=np.uint32).astype(np.uint8)


def read_idx(content: bytes) -> None:
    """data.idx: as images or, where that is refused, as labels."""
    from data import idx

    path = _file("idx", content)
    try:
        images = idx.read_images(path)
    except errors.UserError:
        labels = idx.read_labels(path)
        assert labels.dtype == np.uint8 and labels.ndim == 1 and labels.max() <= 9
    else:
        assert images.dtype == np.uint8 and images.shape[1:] == (28, 28, 1)
        assert images.nbytes <= idx.MAX_BYTES


def idx_seeds() -> list[bytes]:
    """Images and labels as they are."""
    return [
        _idx(_digits(2).reshape(2, 28, 28)),
        _idx(np.array([7, 0, 9], np.uint8)),
    ]


def read_gzip(content: bytes) -> None:
    """data.idx: the same, packed.

    A fuzzer does not find a checksum. So the first byte says whether the others are
    the file, or are packed to make it, once or in two members.
    """
    kind, rest = content[:1], content[1:]
    if kind == b"1":
        rest = gzip.compress(rest, compresslevel=1, mtime=0)
    elif kind == b"2":
        rest = b"".join(gzip.compress(part, 1, mtime=0) for part in (rest, rest[:9]))
    read_idx(rest)


def gzip_seeds() -> list[bytes]:
    """Sound files packed, to be packed, and one with a name and a comment."""
    images, labels = idx_seeds()
    named = io.BytesIO()
    with gzip.GzipFile("labels", "wb", fileobj=named, mtime=0) as file:
        file.write(labels)
    packed = gzip.compress(labels, mtime=0)
    return [b"0" + packed, b"0" + named.getvalue(), b"1" + images, b"2" + labels]


def read_csv(content: bytes) -> None:
    """data.kaggle: test.csv, and train.csv, which has a column more."""
    from data import kaggle

    path = _file("csv", content)
    header = content[:6] == b"label,"
    names = (kaggle.LABEL, *kaggle.PIXELS) if header else kaggle.PIXELS
    table, digest = kaggle._read(str(path), names)
    assert table.dtype == np.uint8 and table.shape[1] == len(names) and len(table)
    assert len(digest) == 64 and (not header or table[:, 0].max() <= 9)


def csv_seeds() -> list[bytes]:
    """Two digits without labels and one with."""
    pixels = ",".join(f"pixel{i}" for i in range(784))
    row = ",".join(str(i % 256) for i in range(784))
    blank = ",".join("0" * 784)
    return [
        f"{pixels}\n{row}\n{blank}\n".encode(),
        f"label,{pixels}\r\n7,{row}\r\n".encode(),
        f"label,{pixels}\n3,{blank}\n9,{blank}".encode(),
    ]


def read_flagfile(content: bytes) -> None:
    """flagfiles and absl: as train.py parses one, with the checks of its flags."""
    from absl import flags

    import train
    from system import flagfiles

    if "epochs" not in flags.FLAGS:
        train.define_flags()
    path = _file("flagfile", content)
    flags.FLAGS.unparse_flags()
    try:
        lines = flagfiles.expand([f"--flagfile={path}"])
        flags.FLAGS(["train.py", *flagfiles.unset(lines, flags.FLAGS)])
        assert flags.FLAGS.epochs >= 1 and 0 < flags.FLAGS.learning_rate < math.inf
    except (flags.Error, ValueError) as error:  # as cli.py does
        raise errors.UsageError(console.one_line(str(error))) from error
    finally:
        flags.FLAGS.unparse_flags()


def flagfile_seeds() -> list[bytes]:
    """Comments, lists, numbers, quotes; one that names itself, one that takes back."""
    return [
        b"# a comment\n--network=lenet\n--epochs=3\n\n--flip_labels=0,1,8\n"
        b"--learning_rate=1e-3\n--nobatch_norm_first\n--shift_pixels=2\n",
        f"--flagfile={_FOLDER.name}/flagfile\n--seed=2\n".encode(),
        b"--hidden_units=150,100\n--network\nmlp\n--undefok=x\n--\nrest\n",
        b'\xef\xbb\xbf--run_dir=\'a b\'  # first\r\n"--data_dir=c d"\r--run_dir=""\n',
        b"--batch_norm=conv\n--dropout=0.2\n--unset=batch_norm,dropout\n--seed=1\n",
    ]


def read_run(content: bytes) -> None:
    """training.runs: run.json, as eval.py looks at it."""
    from evaluation import result
    from training import runs

    folder = _file("run.json", content).parent
    run, config = runs.read_run(folder), result.read_config(folder)
    assert isinstance(run["data"], dict) and isinstance(run["version"], str)
    assert run.get("format", 0) in range(runs.FORMAT + 1)
    assert all(
        isinstance(e, dict) for e in [run["environment"], *run.get("resumed", [])]
    )
    assert isinstance(config["keep_best"], bool) and config["epochs"] >= 1
    json.dumps(run, allow_nan=False).encode()


def run_seeds() -> list[bytes]:
    """A run's, shortened, and one without its settings."""
    config = {
        **{"dataset": "digits", "early_stopping": 0, "epochs": 3, "keep_best": False},
        **{"loss": "softmax_cross_entropy", "network": "lenet", "split_seed": 0},
        **{"validation_size": 0, "weight_average": 0.5, "hidden_units": [150, 100]},
        **{"batch_size": 128, "schedule": "constant", "seed": 0},
    }
    run = {
        **{"version": cli.VERSION, "config": config, "data": {"a": "00"}},
        **{"environment": {"cores": None}, "resumed": [{"cores": 2}]},
    }
    bare = {"version": cli.VERSION, "config": {}, "data": {}, "environment": {}}
    return [json.dumps(run).encode(), json.dumps(bare).encode()]


def read_metrics(content: bytes) -> None:
    """training.history: metrics.csv."""
    from training import history

    for row in history.read(_file("metrics.csv", content).parent):
        assert int(row["step"]) >= 0 and int(row["epoch"]) >= 0
        assert all(isinstance(value, float) for value in row.values())


def metrics_seeds() -> list[bytes]:
    """Two epochs, and a file that was only just made."""
    return [
        b"epoch,step,seconds,test_accuracy\n0,469,1.25,0.98\n1,938,2.5,0.99\n",
        b"",
    ]


def read_manifest(content: bytes) -> None:
    """augment.folder: the manifest of an enlarged set."""
    from augment import folder

    place = _file(folder.MANIFEST, content).parent
    sums = folder.read_checksums(place, {"format": 1, "settings": {"shift_pixels": 1}})
    assert isinstance(sums, dict)


def manifest_seeds() -> list[bytes]:
    """One that says what is expected, and one that does not."""
    sound = {"format": 1, "settings": {"shift_pixels": 1}, "sha256": {"a": "00"}}
    return [json.dumps(some).encode() for some in (sound, {**sound, "format": 2})]


def read_checkpoint(content: bytes) -> None:
    """training.checkpoints: the manifest of a checkpoint.

    A fuzzer does not find a checksum. So the first byte says whether the others are
    the file, or are given theirs.
    """
    from training import checkpoints

    kind, rest = content[:1], content[1:]
    if kind == b"1":
        try:
            rest = checkpoints._render(untrusted.parse_json(rest))
        except (ValueError, TypeError):
            return
    place = checkpoints.path(Path(_FOLDER.name), 1)
    place.mkdir(exist_ok=True)
    (place / checkpoints.MANIFEST).write_bytes(rest)
    assert isinstance(checkpoints.progress(place.parent, 1), dict)


def checkpoint_seeds() -> list[bytes]:
    """A sound one, without its own checksum and with it; one that lacks an entry."""
    from training import checkpoints

    files = {"state.index": {"bytes": 3, "sha256": "0" * 64}}
    sound = json.loads(checkpoints._manifest(files, 1, {}, {"loss": 0.5}))
    sealed = checkpoints._manifest(files, 1, {}, {})
    del sound["sha256"]
    return [
        b"1" + json.dumps(sound).encode(),
        b"0" + sealed,
        b"1" + json.dumps({**sound, "files": {}}).encode(),
    ]


def read_predictions(content: bytes) -> None:
    """evaluation.scoring: predictions.npz."""
    from evaluation import scoring

    folder = _file(scoring.PREDICTIONS, content).parent
    labels, probabilities = scoring.read_predictions(folder)
    assert labels.dtype == np.uint8 and labels.max() <= 9
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (len(labels), 10) and np.isfinite(probabilities).all()


def predictions_seeds() -> list[bytes]:
    """As numpy writes them, plain and packed."""
    seeds = []
    for save in (np.savez, np.savez_compressed):
        content = io.BytesIO()
        probabilities = np.full((3, 10), 0.1, np.float32)
        save(content, labels=np.array([7, 0, 9], np.uint8), probabilities=probabilities)
        seeds.append(content.getvalue())
    return seeds


def read_result(content: bytes) -> None:
    """evaluation.comparison: result.json."""
    from evaluation import comparison

    folder = _file("result.json", content).parent
    split, finished, accuracy, errors = comparison._read_result(folder)
    assert split in ("test", "validation") and isinstance(finished, bool)
    assert isinstance(errors, int)
    assert 0 <= accuracy <= 100


def result_seeds() -> list[bytes]:
    """One of each kind."""
    score = {"binary_accuracy": 0.99, "errors": 7}
    return [
        json.dumps({split: score, "finished": True}).encode()
        for split in ("test", "validation")
    ]


def read_tf_config(content: bytes) -> None:
    """training.cluster: TF_CONFIG, of a worker and of a process that is alone."""
    from training import cluster

    text = content.decode("utf-8", "surrogateescape")
    with contextlib.suppress(errors.UserError):
        cluster.check_alone(text)
    place = cluster.place("multi_worker", text)
    assert 0 <= place.number < place.workers == len(set(place.addresses))
    assert 1 <= place.on_host <= place.workers and place.address


def tf_config_seeds() -> list[bytes]:
    """Two workers, and a chief with one."""
    from training import launch

    chief = {
        "cluster": {"chief": ["a:1"], "worker": ["[::1]:2"]},
        "task": {"type": "worker", "index": "0"},
    }
    return [launch.tf_config([20000, 20001], 1).encode(), json.dumps(chief).encode()]


def read_worker(content: bytes) -> None:
    """training.rendezvous: what another worker, or a stranger, says."""
    from training import rendezvous

    sender, receiver = socket.socketpair()
    with sender, receiver:
        sender.setblocking(False)  # what does not go in at once would wait for a reader
        with contextlib.suppress(BlockingIOError):
            sender.sendall(content)
        sender.close()
        try:
            message = rendezvous._receive(receiver)
            try:
                number, workers = rendezvous._greeting(message)
            except ValueError:
                assert set(rendezvous._answer(message, 3)) <= {0, 1, 2}
            else:
                assert isinstance(number, int) and all(map(str.__len__, workers))
        except (OSError, ValueError) as error:
            raise errors.UserError(console.one_line(str(error))) from error


def worker_seeds() -> list[bytes]:
    """A greeting, and each answer."""
    messages: list[dict[str, Any]] = [
        {"number": 1, "workers": ["a:1", "b:2", "c:3"]},
        {"missing": [1, 2]},
        {"missing": []},
    ]
    return [json.dumps(message).encode() + b"\n" for message in messages]


def read_events(content: bytes) -> None:
    """training.events: events that are cut to the length that two bytes say.

    A fuzzer does not find a checksum. So the next byte says whether the others are the
    file, or the content of records that are given theirs.
    """
    from training import events

    length, kind = int.from_bytes(content[:2], "little"), content[2:3]
    rest = content[3:]
    if kind == b"1":
        rest = b"".join(_record(part) for part in rest.split(b"\n"))
    folder = Path(_FOLDER.name, "train")
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / f"events.out.tfevents.1{events.TRAINING_SUFFIX}").write_bytes(rest)
    lost = events.lost(folder.parent, {"train": length})
    events.rewind(folder.parent, "train", length)
    kept = b"".join(path.read_bytes() for path in folder.iterdir())
    assert rest.startswith(kept) and len(kept) <= length
    assert lost == ([] if len(kept) == length else ["train"])
    assert not kept or events._end_of_records(kept) == len(kept)


def _record(content: bytes) -> bytes:
    """As TensorBoard stores an event."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    length = struct.pack("<Q", len(content))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, content)]
    return length + sums[0] + content + sums[1]


def events_seeds() -> list[bytes]:
    """Two records, of which all or one is kept."""
    records = _record(b"one") + _record(b"two")
    return [
        struct.pack("<H", len(records)) + b"0" + records,
        struct.pack("<H", len(records) - 1) + b"0" + records,
        struct.pack("<H", 38) + b"1one\ntwo",
    ]


def read_journal(content: bytes) -> None:
    """augment.folder: the journal of an interrupted build."""
    from augment import folder, shards

    place = _file(folder._JOURNAL, content).parent
    for number, sums in folder._read_journal(place, 3).items():
        assert type(number) is int and 0 <= number < 3 and isinstance(sums, dict)
    _file(shards._JOB, content)
    assert shards.is_prepared(place) in (True, False)


def journal_seeds() -> list[bytes]:
    """Two shards, and one of which the line is cut off."""
    lines = [json.dumps({"shard": n, "sha256": {"a": "00"}}) for n in (0, 2)]
    return ["\n".join(lines).encode() + b"\n", lines[0].encode()[:20]]


_FOUND_PIXELS = 1 << 18  # of a picture small enough to be looked through


def read_photo(content: bytes) -> None:
    """photos.decode, and photos.finding on what comes out."""
    from photos import decode, finding

    picture = decode.read(_file("photo", content)).pixels
    assert picture.dtype == np.uint8 and picture.shape[2:] == (3,)
    height, width, _ = picture.shape
    assert 0 < height * width <= decode.MOST_PIXELS
    if height * width > _FOUND_PIXELS:
        return
    for digit in finding.find(np.ascontiguousarray(picture[..., 0])):
        left, top, right, bottom = np.add(digit.box, (0, 0, *digit.box[:2])).tolist()
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert digit.image.shape == (28, 28) and digit.image.any()


def photo_seeds() -> list[bytes]:
    """A stroke in each format; turned, transparent, of 16 bits, of few colours."""
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


READERS = {
    "idx": Reader(read_idx, idx_seeds),
    "gzip": Reader(read_gzip, gzip_seeds),
    "csv": Reader(read_csv, csv_seeds),
    "flagfile": Reader(read_flagfile, flagfile_seeds),
    "run": Reader(read_run, run_seeds),
    "metrics": Reader(read_metrics, metrics_seeds),
    "manifest": Reader(read_manifest, manifest_seeds),
    "checkpoint": Reader(read_checkpoint, checkpoint_seeds),
    "predictions": Reader(read_predictions, predictions_seeds),
    "result": Reader(read_result, result_seeds),
    "tf_config": Reader(read_tf_config, tf_config_seeds),
    "worker": Reader(read_worker, worker_seeds),
    "events": Reader(read_events, events_seeds),
    "journal": Reader(read_journal, journal_seeds),
    "photo": Reader(read_photo, photo_seeds),
}


def check(reader: Reader, content: bytes) -> bool:
    """Reads once; whether the reader took it.

    Raises:
      AssertionError: the error has several lines, or what was read is not sound.
    """
    try:
        reader.read(content)
    except errors.UserError as error:
        assert str(error) and str(error).isprintable(), repr(str(error))
        assert len(str(error)) < 6000
        return False
    return True
