# SPDX-License-Identifier: Apache-2.0
"""Tests of data/idx.py: valid files are read, all others give one clear error."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from data import idx
from system import errors
from tests.helpers import error_of

IMAGES = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)
LABELS = np.array([7, 0, 9], np.uint8)


def raw(array):
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def read(tmp_path, content, shape=(None, 28, 28)):
    path = tmp_path / "some-idx"
    path.write_bytes(content)
    return idx.read_idx(path, shape)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_raw_and_gzip_are_read_under_any_name(tmp_path, pack):
    array = read(tmp_path, pack(raw(IMAGES)))
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, IMAGES)


def test_files_longer_than_a_chunk_are_read(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (1500, 28, 28), np.uint8)
    assert images.size > idx._CHUNK_BYTES
    np.testing.assert_array_equal(read(tmp_path, raw(images)), images)
    packed = gzip.compress(raw(images), compresslevel=1)
    np.testing.assert_array_equal(read(tmp_path, packed), images)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\0\0\x08", "ends inside its header"),
        (raw(IMAGES)[:10], "ends inside its header"),
        (b"GIF89a" + bytes(100), "not an idx file"),
        (b"\0\0\x0d\x03" + raw(IMAGES)[4:], "type 0x0d; expected 0x08"),
        (raw(LABELS), "dimensions is 1; expected 3, [N, 28, 28]"),
        (raw(IMAGES[:, :27]), "shape [3, 27, 28]; expected [N, 28, 28]"),
        (raw(IMAGES[:0]), "announces 0 bytes"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 28, 28), "announces 33672"),
        (raw(IMAGES)[:-1], "too short, 2351 bytes after the header; expected 2352"),
        (raw(IMAGES) + b"\0", "too long"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_fault_is_named_with_file_and_remedy(tmp_path, content, expected, pack):
    message = error_of(read, tmp_path, pack(content))
    assert message.startswith(f"{tmp_path / 'some-idx'}: ")
    assert expected in message
    assert "; replace the file" in message or "; check that" in message


def test_missing_folder_and_unreadable(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    shape = (None,)
    assert "no such file" in error_of(idx.read_idx, tmp_path / "absent", shape)
    assert "is a folder" in error_of(idx.read_idx, tmp_path, shape)
    assert "cannot be read" in error_of(idx.read_idx, tmp_path / "loop", shape)


def test_wrong_gzip_checksum_and_trailing_bytes(tmp_path):
    packed = gzip.compress(raw(IMAGES))
    wrong_sum = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]
    assert "data check" in error_of(read, tmp_path, wrong_sum)
    assert "damaged gzip" in error_of(read, tmp_path, packed + b"rubbish")
    assert "more data after its end" in error_of(
        read, tmp_path, packed + gzip.compress(b"")
    )
    assert "damaged gzip" in error_of(read, tmp_path, b"\x1f\x8b" + bytes(range(99)))


def test_every_truncated_gzip_is_refused(tmp_path):
    packed = gzip.compress(raw(LABELS))
    for length in range(len(packed)):
        error_of(read, tmp_path, packed[:length], (None,))


def test_a_flipped_byte_of_gzip_is_refused_or_harmless(tmp_path):
    packed = gzip.compress(raw(LABELS))
    refused = 0
    for position in range(len(packed)):
        damaged = bytearray(packed)
        damaged[position] ^= 0xFF
        try:
            array = read(tmp_path, bytes(damaged), (None,))
        except idx.DataError:
            refused += 1
        else:
            np.testing.assert_array_equal(array, LABELS)
    assert refused >= len(packed) - 6  # gzip's date, system and hint say nothing


@pytest.mark.parametrize("images", [0, 1])
def test_a_bomb_is_not_inflated(tmp_path, images):
    packed = gzip.compress(raw(IMAGES[:images]) + bytes(50 << 20))
    assert len(packed) < 60_000
    tracemalloc.start()
    error_of(read, tmp_path, packed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_images_and_labels_are_read_in_pairs(tmp_path):
    idx.write_idx(tmp_path / "images", IMAGES)
    idx.write_idx(tmp_path / "labels", LABELS)
    images, labels = idx.read_pair(tmp_path / "images", tmp_path / "labels")
    np.testing.assert_array_equal(images, IMAGES[..., np.newaxis])
    np.testing.assert_array_equal(labels, LABELS)
    idx.write_idx(tmp_path / "labels", LABELS[:2])
    message = error_of(idx.read_pair, tmp_path / "images", tmp_path / "labels")
    assert "3 images" in message and "2 labels" in message


def test_the_first_wrong_label_is_named(tmp_path):
    idx.write_idx(tmp_path / "labels", np.array([9, 1, 10, 255], np.uint8))
    assert "label 10 at index 2" in error_of(idx.read_labels, tmp_path / "labels")


def test_written_bytes_are_those_of_the_format(tmp_path):
    idx.write_idx(tmp_path / "out", IMAGES[..., np.newaxis])
    assert (tmp_path / "out").read_bytes() == raw(IMAGES)
    idx.write_idx(tmp_path / "out", IMAGES.transpose(0, 2, 1))
    assert (tmp_path / "out").read_bytes() == raw(IMAGES.transpose(0, 2, 1))
    idx.write_idx(tmp_path / "out", LABELS)
    assert (tmp_path / "out").read_bytes() == b"\0\0\x08\x01\0\0\0\x03\x07\0\x09"


def test_writing_refuses_other_types_and_bad_places(tmp_path):
    with pytest.raises(ValueError, match="float64; expected uint8"):
        idx.write_idx(tmp_path / "out", np.zeros(3))
    assert not (tmp_path / "out").exists()
    place = tmp_path / "absent" / "out"
    assert "cannot be written" in error_of(idx.write_idx, place, LABELS)


def test_data_errors_are_user_errors():
    assert issubclass(idx.DataError, errors.UserError)
    assert idx.DataError.exit_code == 1
