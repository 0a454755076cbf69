# SPDX-License-Identifier: Apache-2.0
"""Tests of data/kaggle.py: files are read and written, or give one clear error."""

import gzip
import hashlib
import os
import re
import tracemalloc

import numpy as np
import pytest

import data
from data import kaggle, table
from system import errors
from tests.helpers import error_of

HEADER = ["label", *(f"pixel{i}" for i in range(784))]
ROWS = 6


@pytest.fixture
def folder(tmp_path, digits):
    """Returns a folder with two valid files of six digits each."""
    images, labels = digits.train_images[:ROWS], digits.train_labels[:ROWS]
    kaggle.write_digits(tmp_path / "train.csv", images, labels)
    kaggle.write_digits(tmp_path / "test.csv", digits.test_images[:ROWS])
    return tmp_path


def lines_of(path):
    return path.read_bytes().splitlines()


def spoil(path, line, column, cell):
    """Replaces a cell; lines are counted from 1, as in an editor."""
    lines = lines_of(path)
    cells = lines[line - 1].split(b",")
    cells[column] = cell
    lines[line - 1] = b",".join(cells)
    path.write_bytes(b"\n".join(lines) + b"\n")


# --- what is read ---


def test_written_files_are_read_back(tmp_path, digits):
    images, labels = digits.train_images[:1000], digits.train_labels[:1000]
    kaggle.write_digits(tmp_path / "train.csv", images, labels)
    kaggle.write_digits(tmp_path / "test.csv", digits.test_images)
    dataset = data.load("kaggle", str(tmp_path))
    np.testing.assert_array_equal(dataset.train_images, images)
    np.testing.assert_array_equal(dataset.train_labels, labels)
    np.testing.assert_array_equal(dataset.test_images, digits.test_images)
    assert dataset.train_images.dtype == dataset.train_labels.dtype == np.uint8
    assert dataset.test_images.dtype == np.uint8
    assert dataset.test_labels is None
    assert dataset.hashes == {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for name in ("train.csv", "test.csv")
    }


def test_pixels_are_read_row_by_row(folder):
    for column, value in ((1, 11), (2, 12), (29, 13), (784, 14)):
        spoil(folder / "train.csv", 2, column, b"%d" % value)
    image = kaggle.load(str(folder)).train_images[0, ..., 0]
    assert [image[0, 0], image[0, 1], image[1, 0], image[27, 27]] == [11, 12, 13, 14]


@pytest.mark.parametrize("block", [1, 100, 5000, 5001, 1 << 22])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_block_sizes_and_line_ends_do_not_matter(folder, monkeypatch, block, end, last):
    sound = kaggle.load(str(folder))
    monkeypatch.setattr(table, "_BLOCK_BYTES", block)
    path = folder / "train.csv"
    path.write_bytes(end.join(lines_of(path)) + (end if last else b""))
    dataset = kaggle.load(str(folder))
    np.testing.assert_array_equal(dataset.train_images, sound.train_images)
    np.testing.assert_array_equal(dataset.train_labels, sound.train_labels)


def test_the_extreme_values_of_each_column_are_accepted(folder):
    for cell, value in ((b"0", 0), (b"9", 9), (b"007", 7), (b"0" * 5000 + b"1", 1)):
        spoil(folder / "train.csv", 3, 0, cell)
        assert kaggle.load(str(folder)).train_labels[1] == value
    spoil(folder / "train.csv", 3, 784, b"255")
    assert kaggle.load(str(folder)).train_images[1, 27, 27, 0] == 255


# --- what is refused ---


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (b"", "nothing"),
        (b"256", "'256'"),
        (b"-1", "'-1'"),
        (b"+1", "'+1'"),
        (b"1.5", "'1.5'"),
        (b"1.0", "'1.0'"),
        (b"1e2", "'1e2'"),
        (b"0x10", "'0x10'"),
        (b"1_0", "'1_0'"),
        (b" 1", "' 1'"),
        (b"1 ", "'1 '"),
        (b"NaN", "'NaN'"),
        (b"True", "'True'"),
        (b"ink", "'ink'"),
        (b"1\x00", r"'1\x00'"),
        (b"1\r2", r"'1\r2'"),
        (b"\xff", r"'\\xff'"),
        ("٣".encode(), "'٣'"),  # a digit to Python, to numpy not
        (b"18446744073709551617", "'18446744073709551617'"),  # 1 in 64 bits
        (b"9" * 6000, f"'{'9' * 40}'…"),
    ],
)
@pytest.mark.parametrize("column", [0, 1, 784])
def test_a_cell_that_is_not_a_byte_is_named(folder, cell, shown, column):
    path = folder / "train.csv"
    spoil(path, 4, column, cell)
    message = error_of(kaggle.load, str(folder))
    assert message == (
        f"{path}: line 4, column {HEADER[column]} holds {shown}; expected a whole "
        f"number from 0 to {255 if column else 9}; correct it, or replace the file"
        " with an intact copy"
    )


def test_a_label_above_9_is_named(folder):
    spoil(folder / "train.csv", 7, 0, b"10")
    message = error_of(kaggle.load, str(folder))
    assert "train.csv: line 7, column label holds '10'; expected a whole" in message


def test_the_first_fault_is_named(folder):
    for line, column in ((6, 2), (5, 9), (5, 8)):
        spoil(folder / "test.csv", line, column, b"?")
    message = error_of(kaggle.load, str(folder))
    assert "test.csv: line 5, column pixel8 holds '?'" in message


@pytest.mark.parametrize("line", range(2, ROWS + 2))
def test_lines_are_counted_across_blocks(folder, monkeypatch, line):
    monkeypatch.setattr(table, "_BLOCK_BYTES", 3000)  # of a line or two
    spoil(folder / "test.csv", line, 783, b"256")
    message = error_of(kaggle.load, str(folder))
    assert f"test.csv: line {line}, column pixel783 holds '256'" in message


@pytest.mark.parametrize("line", [2, 5, 6])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda row: row + b",", "has 786 columns; expected 785"),
        (lambda row: row + b",7", "has 786 columns; expected 785"),
        (lambda row: row + b"," * 50_000, "has 50785 columns; expected 785"),
        (lambda row: row.rpartition(b",")[0], "has 784 columns; expected 785"),
        (lambda row: b"7", "has 1 columns; expected 785"),
        (lambda row: b"", "is blank; expected 785 values"),
        (lambda row: b'"' + row, "cannot be read (unexpected end of data)"),
        (lambda row: b"\r\n" + row, "is blank; expected 785 values"),
    ],
)
def test_a_row_of_another_length_is_named(folder, line, change, expected):
    path = folder / "train.csv"
    lines = lines_of(path)
    lines[line - 1] = change(lines[line - 1])
    path.write_bytes(b"\n".join(lines) + b"\n")
    message = error_of(kaggle.load, str(folder))
    assert message.startswith(f"{path}: line {line} {expected}; correct it")


def test_rows_all_of_another_length_are_refused(folder):
    path = folder / "train.csv"
    header, *rows = lines_of(path)
    path.write_bytes(b"\n".join([header, *(b"0," + row for row in rows)]))
    message = error_of(kaggle.load, str(folder))
    assert "line 2 has 786 columns; expected 785" in message


@pytest.mark.parametrize("block", [1000, 1 << 22])
@pytest.mark.parametrize(
    "save",
    [
        lambda text: "\ufeff" + text,  # Excel's "CSV UTF-8"
        lambda text: re.sub(r"\w+", r'"\g<0>"', text),  # all cells quoted
        lambda text: text.replace("\n", "\r\n") + "\r\n\r\n",  # blank last lines
        lambda text: text + f"{',' * 784}\n" * 9,  # rows of empty cells
        lambda text: text.replace(",", ";"),  # where a comma is the decimal point
        lambda text: text.replace("label", "Label"),
    ],
    ids=["mark", "quotes", "blank", "empty", "semicolons", "capital"],
)
def test_a_file_that_a_spreadsheet_saved_is_read(folder, monkeypatch, save, block):
    monkeypatch.setattr(table, "_BLOCK_BYTES", block)
    sound, path = kaggle.load(str(folder)), folder / "train.csv"
    path.write_bytes(save(path.read_text()).encode())
    found = kaggle.load(str(folder))
    np.testing.assert_array_equal(found.train_images, sound.train_images)
    np.testing.assert_array_equal(found.train_labels, sound.train_labels)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda names: names[1:], "names no column of labels; expected label,…,pixel"),
        (lambda names: names[:3] + names[2:], "has 785 columns of pixels; expected"),
        (lambda names: names[:-1], "has 783 columns of pixels; expected"),
        (lambda names: names + ["pixel784"], "has 785 columns of pixels; expected"),
        (lambda names: names[:-1] + ["pixel2"], "but pixel 783 of 0 to 783 has no"),
        (
            lambda names: names[:-1] + ["Class"],
            "names 2 columns of labels, 'label' and",
        ),
    ],
)
def test_other_headers_are_refused(folder, change, expected):
    path = folder / "train.csv"
    lines = lines_of(path)
    lines[0] = ",".join(change(HEADER)).encode()
    if len(change(HEADER)) == 784:
        lines[1:] = [line.partition(b",")[2] for line in lines[1:]]
    path.write_bytes(b"\n".join(lines))
    message = error_of(kaggle.load, str(folder))
    assert message.startswith(f"{path}: line 1 ") and expected in message


def test_swapped_files_are_noticed(folder):
    (folder / "train.csv").rename(folder / "other")
    (folder / "test.csv").rename(folder / "train.csv")
    (folder / "other").rename(folder / "test.csv")
    message = error_of(kaggle.load, str(folder))
    assert "check that train.csv and test.csv are not swapped" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty; expected a CSV file with 784 columns"),
        (b"\n", "line 1 has 0 columns of pixels; expected"),
        (",".join(HEADER[1:]).encode(), "ends after its header"),
        (",".join(HEADER[1:]).encode() + b"\r\n", "ends after its header"),
        (b"PK\x03\x04" + bytes(99), "compressed file"),
        (gzip.compress(b"pixel0", mtime=0), "compressed file"),
        (bytes(200_000), "line 1"),
        ("pixel0,pixel1".encode("utf-16"), "is UTF-16 text; expected"),
        (bytes(range(256)) * 9, "line 1"),
        (",".join(HEADER[1:]).encode() + b"\r0" * 784, "line 1"),
        (b'"pixel0', "line 1 is no line of a CSV file (unexpected end of data)"),
    ],
)
def test_other_kinds_of_file_are_refused(folder, content, expected):
    (folder / "test.csv").write_bytes(content)
    message = error_of(kaggle.load, str(folder))
    assert message.startswith(f"{folder / 'test.csv'}: ") and expected in message


def test_missing_folder_and_unreadable(folder):
    path = folder / "test.csv"
    path.unlink()
    assert f"{path}: no such file" in error_of(kaggle.load, str(folder))
    path.symlink_to(path)
    assert f"{path}: cannot be read" in error_of(kaggle.load, str(folder))
    path.unlink()
    path.mkdir()
    assert f"{path}: cannot be read" in error_of(kaggle.load, str(folder))
    assert "no such file" in error_of(kaggle.load, str(folder / "absent"))
    assert "cannot be read" in error_of(kaggle.load, str(folder / "train.csv"))


def test_without_a_folder_the_error_says_how_to_get_one():
    message = error_of(data.load, "kaggle")
    assert "--data_dir" in message and "python -m data.make_kaggle" in message


@pytest.mark.parametrize("cell", [b"0", b",", b"\xff"])
def test_an_endless_line_does_not_fill_the_memory(folder, monkeypatch, cell):
    monkeypatch.setattr(table, "_BLOCK_BYTES", 1 << 16)
    with open(folder / "test.csv", "ab") as file:
        file.write(cell * (20 << 20))
    tracemalloc.start()
    message = error_of(kaggle.load, str(folder))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert f"line {ROWS + 2} is longer than 65536 bytes" in message
    assert peak < 4 << 20


def test_a_damaged_file_is_refused_or_read_literally(folder):
    path = folder / "test.csv"
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    alphabet = np.frombuffer(b"0123456789" * 4 + b',\n\r"- .e+x\x00\xff', np.uint8)
    accepted = 0
    for _ in range(100):
        damaged = bytearray(sound)
        start = sound.index(b"\n") + 1
        for position in rng.integers(start, len(sound), rng.integers(1, 3)):
            damaged[position] = rng.choice(alphabet)
        path.write_bytes(damaged)
        try:
            images = kaggle.load(str(folder)).test_images
        except data.DataError as error:
            assert f"{path}: line " in str(error) and str(error).isprintable()
        else:
            rows = damaged[start:].decode().split()
            values = [[int(cell) for cell in row.split(",")] for row in rows]
            np.testing.assert_array_equal(images.reshape(len(rows), -1), values)
            accepted += 1
    assert 10 < accepted < 90


# --- what is written ---


def test_digits_are_written_in_kaggles_format(tmp_path):
    images = np.arange(2 * 784).astype(np.uint8).reshape(2, 28, 28, 1)
    kaggle.write_digits(tmp_path / "train.csv", images, np.array([7, 0], np.uint8))
    kaggle.write_digits(tmp_path / "test.csv", images)
    rows = [",".join(str(i % 256) for i in range(n, n + 784)) for n in (0, 784)]
    header = ",".join(HEADER)
    assert (tmp_path / "train.csv").read_bytes() == (
        f"{header}\n7,{rows[0]}\n0,{rows[1]}\n".encode()
    )
    assert (tmp_path / "test.csv").read_bytes() == (
        f"{header.removeprefix('label,')}\n{rows[0]}\n{rows[1]}\n".encode()
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_a_submission_has_kaggles_format(tmp_path, dtype):
    path = tmp_path / "submission.csv"
    path.write_text("an older one")
    kaggle.write_submission(path, np.array([2, 0, 9], dtype))
    assert path.read_bytes() == b"ImageId,Label\n1,2\n2,0\n3,9\n"
    kaggle.write_submission(path, np.zeros(28_000, dtype))
    lines = path.read_text().splitlines()
    assert len(lines) == 28_001 and lines[-1] == "28000,0"
    assert os.listdir(tmp_path) == ["submission.csv"]


@pytest.mark.parametrize("wrong", [[0.0, 1.0], [[1, 2]], [True], [3, 10], [-1]])
def test_a_submission_contains_only_digits(tmp_path, wrong):
    with pytest.raises(ValueError, match="predictions are .*; expected"):
        kaggle.write_submission(tmp_path / "submission.csv", np.array(wrong))
    assert not os.listdir(tmp_path)


def test_bad_places_are_refused(tmp_path):
    one = np.array([1])
    for path in (tmp_path / "absent" / "out.csv", tmp_path):
        with pytest.raises(errors.UserError, match=f"^cannot write {path}: "):
            kaggle.write_submission(path, one)
    assert not os.listdir(tmp_path)
    assert os.listdir(tmp_path.parent).count(tmp_path.name) == 1
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}*"))
