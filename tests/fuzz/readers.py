# SPDX-License-Identifier: Apache-2.0
"""Each reader of outside bytes, as a function of bytes.

A reader either returns, having asserted that what it read is valid, or raises
`errors.UserError` with one line. Anything else is a finding. A new reader is a function
and a line in `READERS`, and its first inputs are a function in `seeds`.

A fuzzer cannot guess a checksum. So some readers take a first byte that says whether
the rest is the file itself, or is to be given its checksums first.
"""

import contextlib
import gzip
import json
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from system import console, errors, untrusted
from tests.fuzz import seeds

# One per process, removed at its end. In memory if possible: on a disk, flushing a file
# that is written again and again takes longer than everything else.
_SHM = Path("/dev/shm")
_FOLDER = tempfile.TemporaryDirectory(
    prefix="fuzz-", dir=_SHM if os.access(_SHM, os.W_OK) else None
)

FOUND_PIXELS = 1 << 18  # largest photo in which we look for digits; more takes long
TREE_ENTRIES = 100  # files, folders and links in a tree
OUTSIDE_GREY = 77  # of the picture outside


def check(name: str, content: bytes) -> bool:
    """Whether a reader accepts a file.

    Args:
      name: a key of `READERS`.

    Raises:
      AssertionError: the error message has several lines, or what was read is invalid.
    """
    try:
        READERS[name](content)
    except errors.UserError as error:
        assert str(error) and str(error).isprintable(), repr(str(error))
        assert len(str(error)) < 6000
        return False
    return True


def _file(name: str, content: bytes) -> Path:
    path = Path(_FOLDER.name, name)
    path.write_bytes(content)
    return path


def read_idx(content: bytes) -> None:
    """data.idx: images or, if it refuses those, labels, also of other types."""
    from data import idx

    path = _file("idx", content)
    try:
        images = idx.read_images(path)
    except errors.UserError:
        classes = idx.read_classes(path)
        assert classes.dtype == np.int64 and classes.ndim == 1 and len(classes)
        assert idx.peek(path)
        labels = idx.read_labels(path)
        assert labels.dtype == np.uint8 and labels.ndim == 1 and labels.max() <= 9
    else:
        assert images.dtype == np.uint8 and images.shape[1:] == (28, 28, 1)
        assert images.nbytes <= idx.MAX_BYTES


def read_gzip(content: bytes) -> None:
    """data.idx, compressed; 1: compressed here, 2: in two gzip members."""
    kind, rest = content[:1], content[1:]
    if kind == b"1":
        rest = gzip.compress(rest, compresslevel=1, mtime=0)
    elif kind == b"2":
        rest = b"".join(gzip.compress(part, 1, mtime=0) for part in (rest, rest[:9]))
    read_idx(rest)


def read_mapping(content: bytes) -> None:
    """data.idx_files: the mapping of EMNIST's labels to characters."""
    from data import idx_files

    characters = idx_files._read_mapping(str(_file("mapping.txt", content)))
    assert list(characters) == sorted(characters)
    assert all(len(one) == 1 and one.isprintable() for one in characters.values())


def read_csv(content: bytes) -> None:
    """data.table: images with or without labels; a first byte sets the block size."""
    from data import table

    table._BLOCK_BYTES = 1 << (content[0] % 23) if content else 1
    path = _file("csv", content[1:])
    found = table.read(str(path))
    assert found.images.dtype == np.uint8 and found.images.shape[1:] == (28, 28, 1)
    assert len(found.images) and len(found.sha256) == 64
    if found.labels is not None:
        assert found.labels.shape == (len(found.images),)
        assert 0 <= found.labels.min() <= found.labels.max() < len(found.names)
        assert len(set(found.names)) == len(found.names) <= 1000


def read_npz(content: bytes) -> None:
    """data.npz: arrays of images and labels."""
    from data import npz

    dataset = npz.load(str(_file("npz", content)))
    assert dataset.train_images.dtype == dataset.test_images.dtype == np.uint8
    assert dataset.train_images.shape == (len(dataset.train_labels), 28, 28, 1)


def read_folder(content: bytes) -> None:
    """data.folder: a tree, described as in `seeds.folder`, and a picture outside it."""
    from data import folder

    root = Path(_FOLDER.name, "tree")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    outside = _file("outside.png", seeds.grey_png(OUTSIDE_GREY))
    target = os.fsencode(outside)
    for line in content[1:].split(b"\n")[:TREE_ENTRIES]:
        with contextlib.suppress(OSError, ValueError):  # no file can have this name
            _grow(os.fsencode(root), line.replace(seeds.OUTSIDE, target))
    try:
        dataset = folder.load(str(root), normalise_ink=content[:1] == b"1")
    except errors.UserError as error:  # as system.cli does
        raise errors.UserError(console.one_line(str(error))) from error
    images = np.concatenate([dataset.train_images, dataset.test_images])
    assert 2 <= len(dataset.classes) <= len(images) <= TREE_ENTRIES
    assert not np.isin(images, [OUTSIDE_GREY, 255 - OUTSIDE_GREY]).all((1, 2, 3)).any()


def _grow(root: bytes, line: bytes) -> None:
    """Makes an entry of a tree, with the folders above it, but none outside."""
    kind, (name, _, value) = line[:1], line[1:].partition(b"=")
    place = os.path.join(root, name)
    if os.path.isabs(name) or b".." in name or b"\0" in name:
        return
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if not os.path.realpath(os.path.dirname(place)).startswith(root):
        return  # behind a link
    if kind == b"d":
        os.mkdir(place)
    elif kind == b"l":
        os.symlink(value, place)
    elif kind == b"i":
        os.mkfifo(place)
    elif not os.path.lexists(place):  # writing to a pipe would wait, to a link lead out
        content = seeds.grey_png(value[0]) if kind == b"g" and value else value
        Path(os.fsdecode(place)).write_bytes(content)


def read_flagfile(content: bytes) -> None:
    """system.flagfiles and absl: a flagfile of train.py."""
    from absl import flags

    from config import define_flags
    from system import flagfiles

    if "epochs" not in flags.FLAGS:
        define_flags()
    own_folder = os.fsencode(_FOLDER.name)
    path = _file("flagfile", content.replace(seeds.OWN_FOLDER, own_folder))
    flags.FLAGS.unparse_flags()
    try:
        lines = flagfiles.expand([f"--flagfile={path}"])
        flags.FLAGS(["train.py", *flagfiles.unset(lines, flags.FLAGS)])
        assert flags.FLAGS.epochs >= 1 and 0 < flags.FLAGS.learning_rate < math.inf
    except (flags.Error, ValueError) as error:  # as system.cli does
        raise errors.UsageError(console.one_line(str(error))) from error
    finally:
        flags.FLAGS.unparse_flags()


def read_run(content: bytes) -> None:
    """training.runs: run.json, as eval.py reads it."""
    from config import Config
    from training import runs

    folder = _file("run.json", content).parent
    run = runs.read_run(folder)
    config = runs.settings_of(folder, run, Config)
    assert isinstance(run["data"], dict) and isinstance(run["version"], str)
    assert run.get("format", 0) in range(runs.FORMAT + 1)
    assert all(
        isinstance(e, dict) for e in [run["environment"], *run.get("resumed", [])]
    )
    assert isinstance(config.keep_best, bool) and config.epochs >= 1
    json.dumps(run, allow_nan=False).encode()


def read_metrics(content: bytes) -> None:
    """training.history: metrics.csv."""
    from training import history

    for row in history.read(_file("metrics.csv", content).parent):
        assert int(row["step"]) >= 0 and int(row["epoch"]) >= 0
        assert all(isinstance(value, float) for value in row.values())


def read_manifest(content: bytes) -> None:
    """augment.folder: the manifest of an enlarged set."""
    from augment import folder

    place = _file(folder.MANIFEST, content).parent
    sums = folder.read_checksums(place, {"format": 1, "settings": {"shift_pixels": 1}})
    assert isinstance(sums, dict)


def read_checkpoint(content: bytes) -> None:
    """training.manifest: the manifest of a checkpoint; 1: given its checksum."""
    from training import checkpoints, manifest

    kind, rest = content[:1], content[1:]
    if kind == b"1":
        try:
            rest = manifest.render(untrusted.parse_json(rest))
        except (ValueError, TypeError):
            return
    place = checkpoints.path(Path(_FOLDER.name), 1)
    place.mkdir(exist_ok=True)
    (place / manifest.NAME).write_bytes(rest)
    assert isinstance(checkpoints.progress(place.parent, 1), dict)


def read_predictions(content: bytes) -> None:
    """evaluation.predictions: predictions.npz."""
    from evaluation import predictions

    folder = _file(predictions.PREDICTIONS, content).parent
    labels, probabilities = predictions.read(folder)
    assert labels.dtype == np.uint8 and labels.max() <= 9
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (len(labels), 10) and np.isfinite(probabilities).all()


def read_result(content: bytes) -> None:
    """evaluation.recipes: result.json."""
    from evaluation import recipes

    folder = _file("result.json", content).parent
    split, finished, accuracy, wrong = recipes._read_result(folder, 1)
    assert split in ("test", "validation") and isinstance(finished, bool)
    assert isinstance(wrong, int)
    assert 0 <= accuracy <= 100


def read_tf_config(content: bytes) -> None:
    """training.cluster: TF_CONFIG, of one worker of several or of a single process."""
    from training import cluster

    text = content.decode("utf-8", "surrogateescape")
    with contextlib.suppress(errors.UserError):
        cluster.check_alone(text)
    place = cluster.find_place("multi_worker", text)
    assert 0 <= place.number < place.workers == len(set(place.addresses))
    assert 1 <= place.on_host <= place.workers and place.address


def read_worker(content: bytes) -> None:
    """training.rendezvous: a message from another worker, or from a stranger."""
    from training import rendezvous

    sender, receiver = socket.socketpair()
    with sender, receiver:
        sender.setblocking(False)  # nobody reads yet, so a long message would block
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


def read_events(content: bytes) -> None:
    """training.events: an events file that is cut to a length.

    Two bytes are that length; a third is 1 if each line is to become a record.
    """
    from training import events

    length, kind = int.from_bytes(content[:2], "little"), content[2:3]
    rest = content[3:]
    if kind == b"1":
        rest = b"".join(seeds.record(part) for part in rest.split(b"\n"))
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


def read_journal(content: bytes) -> None:
    """augment.folder: the journal of an interrupted build."""
    from augment import folder, shards

    place = _file(folder._JOURNAL, content).parent
    for number, sums in folder._read_journal(place, 3).items():
        assert type(number) is int and 0 <= number < 3 and isinstance(sums, dict)
    _file(shards._JOB, content)
    assert shards.is_prepared(place) in (True, False)


def read_photo(content: bytes) -> None:
    """data.decode, then photos.segment on the decoded picture."""
    from data import decode
    from photos import segment

    picture = decode.read(_file("photo", content)).pixels
    assert picture.dtype == np.uint8 and picture.shape[2:] == (3,)
    height, width, _ = picture.shape
    assert 0 < height * width <= decode.MAX_PIXELS
    if height * width > FOUND_PIXELS:
        return
    for digit in segment.find(np.ascontiguousarray(picture[..., 0])):
        left, top, right, bottom = np.add(digit.box, (0, 0, *digit.box[:2])).tolist()
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert digit.image.shape == (28, 28) and digit.image.any()


READERS: dict[str, Callable[[bytes], None]] = {
    "idx": read_idx,
    "gzip": read_gzip,
    "mapping": read_mapping,
    "csv": read_csv,
    "npz": read_npz,
    "folder": read_folder,
    "flagfile": read_flagfile,
    "run": read_run,
    "metrics": read_metrics,
    "manifest": read_manifest,
    "checkpoint": read_checkpoint,
    "predictions": read_predictions,
    "result": read_result,
    "tf_config": read_tf_config,
    "worker": read_worker,
    "events": read_events,
    "journal": read_journal,
    "photo": read_photo,
}
