# SPDX-License-Identifier: Apache-2.0
"""Own data in every form: equal arrays, and one line for each fault."""

import gzip
import json
import string
import struct
import tracemalloc
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import data
import train
from config import Config
from data import idx, npz
from system import errors
from tests.helpers import ROOT, error_of
from training import history

NAMES = ("train_images", "train_labels", "test_images", "test_labels")


def write_idx(folder, dataset, prefix="", pack=bytes, suffix=""):
    """Writes the four files of MNIST's form."""
    for part, word in (("train", "train"), ("test", "t10k")):
        for kind in ("images", "labels"):
            array = getattr(dataset, f"{part}_{kind}")
            dims = 3 if kind == "images" else 1
            path = folder / f"{prefix}{word}-{kind}-idx{dims}-ubyte{suffix}"
            idx.write_idx(path, array)
            path.write_bytes(pack(path.read_bytes()))


@pytest.fixture(scope="module")
def some(digits):
    """A few hundred of scikit-learn's digits."""
    arrays = (digits.train_images, digits.train_labels)
    test = (digits.test_images[:60], digits.test_labels[:60])
    return data.Dataset("some", *(a[:200] for a in arrays), *test, {}, "")


def check_same(found, expected):
    """Equal arrays, classes and types; hashes are those of the content."""
    assert found.classes == expected.classes
    for name in NAMES:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


# --- idx ---


def header(code, *dims):
    return struct.pack(f">4B{len(dims)}I", 0, 0, code, len(dims), *dims)


@pytest.mark.parametrize(
    ("prefix", "pack", "suffix"),
    [("", bytes, ""), ("fashion-", gzip.compress, ".gz"), ("K-", bytes, ".gz")],
)
def test_idx_files_are_read_under_any_names(tmp_path, some, prefix, pack, suffix):
    write_idx(tmp_path, some, prefix, pack, suffix)
    (tmp_path / "train-notes.txt").write_text("not an idx file")
    found = data.load("idx", str(tmp_path))
    check_same(found, some)
    assert found.name == "idx" and found.source == str(tmp_path)
    # Hashes are those of the content, so packing makes no other data set.
    again = tmp_path / "again"
    again.mkdir()
    write_idx(again, some)
    assert data.load("idx", str(again)).hashes == found.hashes


def test_mnist_as_idx_is_mnist(mnist):
    check_same(data.load("idx", mnist.source), mnist)


def test_labels_of_qmnist(tmp_path, some):
    write_idx(tmp_path, some, "qmnist-")
    for part, labels in (("train", some.train_labels), ("t10k", some.test_labels)):
        (tmp_path / f"qmnist-{part}-labels-idx1-ubyte").unlink()
        table = np.arange(len(labels) * 8).reshape(-1, 8)
        table[:, 0] = labels
        name = f"qmnist-{part.replace('t10k', 'test')}-labels-idx2-int.gz"
        content = header(0x0C, *table.shape) + table.astype(">i4").tobytes()
        (tmp_path / name).write_bytes(gzip.compress(content))
    check_same(data.load("idx", str(tmp_path)), some)


def write_emnist(folder, some):
    """Letters 1, 2 and 3, on their side, in a folder with another set."""
    sideways = data.Dataset(
        "letters",
        np.ascontiguousarray(some.train_images.swapaxes(1, 2)),
        some.train_labels % 3 + 1,
        np.ascontiguousarray(some.test_images.swapaxes(1, 2)),
        some.test_labels % 3 + 1,
        {},
        "",
    )
    write_idx(folder, sideways, "emnist-letters-", gzip.compress, ".gz")
    write_idx(folder, some, "emnist-digits-")
    (folder / "emnist-letters-mapping.txt").write_text("1 65 97\n3 67 99\n2 66 98\n\n")
    return str(folder / "emnist-letters")


def test_letters_of_emnist(tmp_path, some):
    place = write_emnist(tmp_path, some)
    found = data.load("idx", place)
    assert found.classes == ("A", "B", "C")
    np.testing.assert_array_equal(found.train_images, some.train_images)
    np.testing.assert_array_equal(found.train_labels, some.train_labels % 3)
    assert found.source == (
        f"{place}; rows and columns of the images swapped, as EMNIST's need"
    )
    flat = data.load("idx", place, transpose=False)
    np.testing.assert_array_equal(flat.test_images, some.test_images.swapaxes(1, 2))
    assert flat.source == place
    (tmp_path / "emnist-letters-mapping.txt").unlink()
    assert data.load("idx", place).classes == ("1", "2", "3")


def test_one_of_several_sets_is_asked_for(tmp_path, some):
    place = write_emnist(tmp_path, some)
    message = error_of(data.load, "idx", str(tmp_path))
    assert "is a file of" in message and f"--data_dir={place}" in message


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("train-labels-idx1-ubyte", None, "no idx file of train labels"),
        ("t10k-images-idx3-ubyte", b"", "no idx file of test images"),
        ("train-images-idx3-ubyte", header(8, 2, 28, 27), "expected [N, 28, 28]"),
        ("train-images-idx3-ubyte", b"\x1f\x8b\0", "damaged gzip file"),
        ("t10k-labels-idx1-ubyte", header(8, 3) + b"abc", "60 images, but"),
        ("t10k-labels-idx1-ubyte", header(9, 9) + b"abc", "too short"),
        ("t10k-labels-idx1-ubyte", header(13, 1) + bytes(4), "type 0x0d"),
        ("emnist-letters-mapping.txt", b"0 48\n1 49", "label 2 at index"),
        ("mapping.txt", b"0 48\n1", "mapping.txt: line 2 is '1'; expected a label"),
        ("mapping.txt", b"0 48\n1 48", "line 2 is '1 48'"),
        ("mapping.txt", b"\xff", "cannot be read"),
    ],
)
def test_a_fault_of_idx_files_is_named(tmp_path, some, name, content, says):
    write_idx(tmp_path, some)
    Path(tmp_path, name).unlink(missing_ok=True)
    if content is not None:
        Path(tmp_path, name).write_bytes(content)
    message = error_of(data.load, "idx", str(tmp_path))
    assert says in message and str(tmp_path) in message


# --- csv ---


def lines(images, labels=None):
    rows = images.reshape(len(images), -1).tolist()
    if labels is not None:
        rows = [[label, *row] for label, row in zip(labels, rows)]
    return [[str(cell) for cell in row] for row in rows]


def text(names, rows, separator=","):
    return "".join(f"{separator.join(row)}\n" for row in [names, *rows] if row)


PIXELS = [f"pixel{i}" for i in range(784)]


def as_kaggle(rows):
    return text(["label", *PIXELS], rows)


def as_pjreddie(rows):
    return text([], rows)


def as_pandas(rows):
    """DataFrame.to_csv with pixels as columns 0 to 783 and the label last."""
    rows = [[str(n), *row[1:], row[0]] for n, row in enumerate(rows)]
    return text(["", *map(str, range(784)), "Class"], rows)


def as_r(rows):
    """write.csv of a matrix, whose columns are V1 to V785."""
    names = [f'"{name}"' for name in ["", *(f"V{i}" for i in range(1, 786))]]
    return text(names, [[f'"{n}"', *row] for n, row in enumerate(rows, 1)])


def as_spreadsheet(rows):
    rows = [[f'"{cell}"' for cell in row] for row in rows]
    names = ["y", *(f"{r}x{c}" for r in range(1, 29) for c in range(1, 29))]
    table = text(names, rows, ";").replace("\n", "\r\n")
    return f"\ufeff{table}{';' * 784}\r\n\r\n"


def by_columns(rows):
    """Columns in reverse, named by column and row, separated by tabs."""
    names = ["target", *(f"p{i}" for i in range(1, 785))]
    return text(names[::-1], [row[::-1] for row in rows], "\t")


WRITERS = (as_kaggle, as_pjreddie, as_pandas, as_r, as_spreadsheet, by_columns)


@pytest.mark.parametrize("write", WRITERS)
def test_csv_files_of_all_kinds_are_equal(tmp_path, some, write):
    for part in ("train", "test"):
        images, labels = (getattr(some, f"{part}_{k}") for k in ("images", "labels"))
        content = write(lines(images, labels)).encode()
        (tmp_path / f"{part}.csv").write_bytes(content)
    found = data.load("csv", str(tmp_path))
    check_same(found, some)
    assert found.source == str(tmp_path)


def test_labels_of_csv_files_may_be_text(tmp_path, some):
    names = np.array(["zebra", "a,b", "Ä", "zebra"])
    labels = names[some.train_labels % 4]
    rows = lines(some.train_images, (f'"{label}"' for label in labels))
    path = tmp_path / "animals.csv"
    path.write_text(as_kaggle(rows), "utf-8")
    found = data.load("csv", str(path))
    assert found.classes == ("a,b", "zebra", "Ä")
    assert found.source == (
        f"{path}; has no test part, so a tenth of each class, 19 images, is held out"
        " as one"
    )
    assert len(found.train_labels) == 181
    counts = np.unique(labels, return_counts=True)[1]
    assert np.bincount(found.test_labels).tolist() == [n // 10 for n in counts]
    # The same file alone in a folder, and the same tenth.
    again = data.load("csv", str(tmp_path))
    assert again.hashes == found.hashes
    everything = np.concatenate([found.train_images, found.test_images])
    assert {i.tobytes() for i in everything} == {i.tobytes() for i in some.train_images}


def test_numbers_of_classes_are_sorted_as_numbers(tmp_path, some):
    labels = [f"{label + 7:03}" for label in some.train_labels]
    (tmp_path / "train.csv").write_text(as_pjreddie(lines(some.train_images, labels)))
    (tmp_path / "test.csv").write_text(text([], lines(some.test_images)))
    found = data.load("csv", str(tmp_path))
    assert found.classes == tuple(str(number) for number in range(7, 17))
    np.testing.assert_array_equal(found.train_labels, some.train_labels)
    np.testing.assert_array_equal(found.test_images, some.test_images)
    assert found.test_labels is None and "test_labels" not in found.hashes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.replace("label,", "label,class,"), "2 columns of labels"),
        (lambda t: t.replace("pixel5,", "pixel6,"), "but pixel 5 of 0 to 783 has no"),
        (lambda t: t.replace("label,", "", 1), "has 785 columns; expected 784"),
        (lambda t: t.replace("pixel0,", "", 1), "has 783 columns of pixels"),
        (lambda t: t.replace("\n0,", "\n,", 1), "column label holds nothing"),
        (lambda t: t.replace("\n0,", "\n\x07,", 1), "column label holds '\\x07'"),
        (lambda t: t.replace(",0,", ",0.5,", 1), "holds '0.5'; expected a whole"),
        (lambda t: t.replace(",0,", ',"0,', 1), "cannot be read (unexpected end"),
        (lambda t: t + t, "column pixel0 holds 'pixel0'"),
    ],
)
def test_a_fault_of_a_csv_file_is_named(tmp_path, some, change, says):
    path = tmp_path / "train.csv"
    path.write_text(change(as_kaggle(lines(some.train_images, some.train_labels))))
    message = error_of(data.load, "csv", str(tmp_path))
    assert message.startswith(f"{path}: line ") and says in message


def test_too_many_labels_are_refused(tmp_path, some):
    rows = lines(np.repeat(some.train_images[:1], 1001, 0), range(1001))
    (tmp_path / "train.csv").write_text(as_kaggle(rows))
    message = error_of(data.load, "csv", str(tmp_path))
    assert "line 1002, column label holds '1000'; expected at most 1,000" in message


def test_a_csv_file_is_asked_for(tmp_path, some):
    assert "name it with --data_dir" in error_of(data.load, "csv")
    assert "holds no CSV file with train" in error_of(data.load, "csv", str(ROOT))
    rows = lines(some.train_images)
    for name in ("a_train.csv", "b_train.csv"):
        (tmp_path / name).write_text(as_pjreddie(rows))
    message = error_of(data.load, "csv", str(tmp_path))
    assert message.endswith(f"choose by prefix, as --data_dir={tmp_path / 'b'}")
    message = error_of(data.load, "csv", str(tmp_path / "b"))
    assert "names no column of labels" in message


# --- npz ---


def keras(dataset, **changes):
    """The arrays of a data set under Keras' names."""
    images = dataset.train_images[..., 0], dataset.test_images[..., 0]
    arrays = {
        **{"x_train": images[0], "y_train": dataset.train_labels},
        **{"x_test": images[1], "y_test": dataset.test_labels},
    }
    return {**arrays, **changes}


def as_keras(arrays):
    return arrays


def as_floats(arrays):
    """Floats from 0 to 1, in another order, and wide labels."""
    floats = {k: (v / 255).astype(np.float32) for k, v in arrays.items() if "x" in k}
    labels = {k: v.astype(">i8")[:, None] for k, v in arrays.items() if "y" in k}
    floats["x_test"] = np.asfortranarray(floats["x_test"])
    return {**labels, **floats, "x_val": np.zeros(3)}


def as_medmnist(arrays):
    keys = npz.NAMES[1]
    arrays = dict(zip(keys, arrays.values()))
    return {**arrays, keys[0]: arrays[keys[0]][..., np.newaxis].astype(np.float64)}


@pytest.mark.parametrize("change", [as_keras, as_floats, as_medmnist])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_files_are_equal(tmp_path, some, change, save):
    path = tmp_path / "mnist.npz"
    save(path, **change(keras(some)))
    found = data.load("npz", str(path))
    check_same(found, some)
    assert found.source == str(path)
    assert data.load("npz", str(tmp_path)).hashes == found.hashes


def test_all_of_mnist_in_an_npz_file(tmp_path, mnist):
    np.savez(tmp_path / "mnist.npz", **keras(mnist))
    check_same(data.load("npz", str(tmp_path / "mnist.npz")), mnist)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"x_train": np.zeros((200, 28, 27))}, "x_train is float64 [200, 28, 27] from"),
        ({"x_train": np.full((200, 28, 28), -0.5)}, "from -0.5 to -0.5; expected"),
        ({"x_test": np.full((60, 28, 28), np.nan)}, "with NaN or infinity"),
        ({"y_test": np.zeros((60, 10))}, "y_test is float64 [60, 10]; expected"),
        (
            {"y_train": np.zeros(3, int)},
            "y_train is int64 [3]; expected integers [200]",
        ),
        ({"y_train": np.full(200, "a")}, "not an array of plain numbers"),
        ({"y_train": np.full(200, None)}, "not an array of plain numbers"),
    ],
)
def test_a_fault_of_an_npz_file_is_named(tmp_path, some, changes, says):
    path = tmp_path / "set.npz"
    np.savez(path, **keras(some, **changes))
    message = error_of(data.load, "npz", str(path))
    assert message.startswith(f"{path}: ") and says in message


def test_files_that_are_no_npz_are_refused(tmp_path, some):
    path = tmp_path / "set.npz"
    assert "no such file" in error_of(data.load, "npz", str(path))
    assert "holds 0 .npz files" in error_of(data.load, "npz", str(tmp_path))
    assert "name it with --data_dir" in error_of(data.load, "npz")
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")  # a pickle
    assert "no .npz file" in error_of(data.load, "npz", str(path))
    np.savez(path, x_train=some.train_images)
    assert "holds x_train; expected" in error_of(data.load, "npz", str(path))
    with zipfile.ZipFile(path, "w") as archive:  # a directory of over a MiB
        for number in range(5000):
            archive.writestr(f"{number:0250}", b"")
    assert "a directory too large" in error_of(data.load, "npz", str(path))


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_npz_bomb_is_not_unpacked(tmp_path, some, packing):
    path = tmp_path / "set.npz"
    np.savez(path, **keras(some))
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    parts["x_train.npy"] = parts["x_train.npy"].replace(b"(200,", b"(2000000,")[:128]
    parts["x_train.npy"] += bytes(50 << 20)
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    tracemalloc.start()
    message = error_of(data.load, "npz", str(path))
    assert "x_train.npy is not as long as its header says" in message
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


# --- folder ---


def write_pictures(folder, images, labels, invert=False, suffix="png"):
    for number, (image, label) in enumerate(zip(images[..., 0], labels)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(255 - image if invert else image)
        picture.save(place / f"{number:05}.{suffix}")


@pytest.mark.parametrize("invert", [False, True])
def test_pictures_are_equal(tmp_path, some, invert):
    write_pictures(tmp_path / "train", some.train_images, some.train_labels, invert)
    write_pictures(tmp_path / "test", some.test_images, some.test_labels, invert, "bmp")
    (tmp_path / "train" / "0" / "notes.txt").write_text("no picture")
    found = data.load("folder", str(tmp_path))
    order = np.argsort(some.train_labels, kind="stable")
    np.testing.assert_array_equal(found.train_images, some.train_images[order])
    np.testing.assert_array_equal(found.train_labels, some.train_labels[order])
    assert found.classes == some.classes and len(found.test_labels) == 60
    assert ("dark ink on light paper" in found.source) == invert
    again = data.load("folder", str(tmp_path / "train"))  # without a test part
    assert "is held out as one" in again.source


def test_pictures_of_other_sizes(tmp_path):
    stroke = np.zeros((56, 112), np.uint8)
    stroke[10:50, 40:60] = 255
    images = np.stack([stroke, stroke.copy()])[..., np.newaxis]
    write_pictures(tmp_path / "train", images, ["b", "a"])
    write_pictures(tmp_path / "test", images, ["b", "a"])
    resized = data.load("folder", str(tmp_path)).test_images[0, ..., 0]
    rows, columns = np.nonzero(resized > 128)
    assert (rows.min(), columns.min()) == (10, 10) and not resized[:8].any()
    found = data.load("folder", str(tmp_path), normalise_ink=True)
    rows = np.flatnonzero(found.train_images[0, ..., 0].max(1))
    assert len(rows) == 20 and found.classes == ("a", "b")
    assert found.source.endswith("; ink scaled and centred")


def test_faults_of_a_folder_are_named(tmp_path, some):
    assert "name it with --data_dir" in error_of(data.load, "folder")
    assert "cannot be read" in error_of(data.load, "folder", str(tmp_path / "absent"))
    assert "no folder with pictures" in error_of(data.load, "folder", str(tmp_path))
    write_pictures(tmp_path, some.train_images, some.train_labels)
    path = tmp_path / "3" / "bad.png"
    path.write_bytes(b"no picture")
    with pytest.raises(errors.UserError, match=f"^{path}: not a photo"):
        data.load("folder", str(tmp_path))
    path.unlink()
    blank = tmp_path / "3" / "blank.png"
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(blank)
    message = error_of(lambda: data.load("folder", str(tmp_path), normalise_ink=True))
    assert message.startswith(f"{blank}: no ink")


def make_tree(folder):
    """Two classes of two pictures; returns the first picture."""
    images = np.full((4, 28, 28, 1), 5, np.uint8)
    write_pictures(folder, images, ["a", "a", "b", "b"])
    return folder / "a" / "00000.png"


def test_links_inside_a_folder_are_followed_others_refused(tmp_path):
    picture = make_tree(tmp_path / "set")
    (tmp_path / "set" / "c").symlink_to("a")
    (tmp_path / "link").symlink_to("set")
    found = data.load("folder", str(tmp_path / "link"))
    assert found.classes == ("a", "b", "c")
    (tmp_path / "set" / "a" / "notes").symlink_to("/dev/zero")  # no picture
    assert data.load("folder", str(tmp_path / "set")).hashes == found.hashes
    other = make_tree(tmp_path / "other")
    for link, target in (("a/9.png", other), ("d", other.parent), ("e", tmp_path)):
        link = tmp_path / "set" / link
        link.symlink_to(target)
        message = error_of(data.load, "folder", str(tmp_path / "set"))
        assert message.startswith(f"{link}: a link that leads out of {tmp_path}/set")
        link.unlink()
    picture.unlink()
    picture.symlink_to(picture)
    with pytest.raises(errors.UserError, match=f"^{picture}: cannot be read"):
        data.load("folder", str(tmp_path / "set"))


def test_classes_without_pictures_or_with_odd_names_are_named(tmp_path):
    picture = make_tree(tmp_path / "train")
    make_tree(tmp_path / "test")
    (tmp_path / "train" / "empty").mkdir()
    message = error_of(data.load, "folder", str(tmp_path))
    assert message.startswith(f"{tmp_path}/train/empty: holds no picture")
    (tmp_path / "train" / "empty").rename(tmp_path / "test" / "d")
    (tmp_path / "test" / "d" / "1.PNG").write_bytes(picture.read_bytes())
    (tmp_path / "test" / "a" / "00000.png").unlink()
    found = data.load("folder", str(tmp_path))
    assert found.missing == ["d"] and len(found.test_labels) == 4
    (tmp_path / "test" / "d").rename(tmp_path / "test" / "d\udcff")
    message = error_of(data.load, "folder", str(tmp_path))
    assert "'d\\udcff' cannot be the name of a class" in message
    assert message.startswith(f"{tmp_path}: ") and message.isprintable()


# --- training ---


@pytest.fixture(scope="module")
def letters():
    """Made letters: 26 classes, drawn somewhat differently each time."""
    rng, classes = np.random.default_rng(0), string.ascii_uppercase
    images = np.zeros((26 * 12, 28, 28, 1), np.uint8)
    labels = np.tile(np.arange(26, dtype=np.uint8), 12)
    for image, label in zip(images, labels):
        x, y = rng.integers(3, 8), rng.integers(20, 25)
        size, pen = rng.uniform(0.7, 0.9), int(rng.integers(1, 3))
        canvas = np.ascontiguousarray(image[..., 0])
        cv2.putText(canvas, classes[label], (x, y), 0, size, 255, pen, cv2.LINE_AA)
        image[..., 0] = canvas
    parts = (images[:260], labels[:260], images[260:], labels[260:])
    return data.Dataset("letters", *parts, {}, "", tuple(classes))


def write_csv(place, dataset):
    for part in ("train", "test"):
        images, labels = (getattr(dataset, f"{part}_{k}") for k in ("images", "labels"))
        names = [dataset.classes[label] for label in labels]
        (place / f"{part}.csv").write_text(as_kaggle(lines(images, names)))


def write_folder(place, dataset):
    for part in ("train", "test"):
        images, labels = (getattr(dataset, f"{part}_{k}") for k in ("images", "labels"))
        write_pictures(place / part, images, [dataset.classes[n] for n in labels])


def write_npz(place, dataset):
    np.savez(place / "set.npz", **keras(dataset))


FORMS = {"csv": write_csv, "folder": write_folder, "idx": write_idx, "npz": write_npz}


@pytest.mark.parametrize("which", ["letters", "digits"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_trained_on(tmp_path, request, monkeypatch, form, which):
    # A report takes longer than all the rest, and has tests of its own.
    monkeypatch.setattr(train.result, "evaluate", lambda *_: None)
    FORMS[form](tmp_path, request.getfixturevalue(which))
    config = Config(
        dataset=form,
        data_dir=str(tmp_path),
        network="mlp",
        replicas=1,
        epochs=2,
        shift_directions=[],
        flip_codes=[],
        run_dir=str(tmp_path / "run"),
        epoch_images=640,
        learning_rate=0.01,
    )
    train.run(config)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    count = 26 if which == "letters" else 10
    assert len(run["classes"]) == count
    rows = history.read(tmp_path / "run")
    assert rows[-1]["test_accuracy"] > 3 / count


def test_a_folder_is_asked_for(tmp_path):
    assert "name it with --data_dir" in error_of(data.load, "idx")
    assert "cannot be read" in error_of(data.load, "idx", str(tmp_path / "a" / "b"))


def test_an_option_of_another_dataset_is_refused():
    with pytest.raises(errors.UsageError, match="--dataset=mnist has no --transpose"):
        data.load("mnist", transpose=True)
