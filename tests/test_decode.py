# SPDX-License-Identifier: Apache-2.0
"""Photos of all formats are decoded upright, on white, in 8 bits, or refused."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import decode
from photos import annotate, reading
from tests.helpers import command

# Asymmetric, so that no two ways of turning it give the same picture.
PICTURE = np.arange(4 * 6, dtype=np.uint8).reshape(4, 6) * 10
FORMATS = {"png": {}, "bmp": {}, "tif": {}, "webp": {"lossless": True}}


def stored(tmp_path, image, suffix="png", **options):
    path = tmp_path / f"photo.{suffix}"
    image.save(path, **options)
    return path


def read_grey(path):
    """Reads a photo whose three channels must be equal."""
    picture, scale = decode.read(path)
    assert scale == 1
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    np.testing.assert_array_equal(picture[..., :1] + 0 * picture, picture)
    return picture[..., 0]


@pytest.mark.parametrize("suffix", FORMATS)
def test_lossless_formats_are_decoded_exactly(tmp_path, suffix):
    image = Image.fromarray(np.stack([PICTURE, PICTURE // 2, 255 - PICTURE], -1))
    path = stored(tmp_path, image, suffix, **FORMATS[suffix])
    np.testing.assert_array_equal(decode.read(path).pixels, np.asarray(image))


def test_jpeg(tmp_path):
    image = Image.fromarray(np.full((40, 50), 90, np.uint8))
    grey = read_grey(stored(tmp_path, image, "jpg"))
    assert grey.shape == (40, 50) and np.all(np.abs(grey.astype(int) - 90) <= 2)


def test_the_suffix_does_not_matter(tmp_path):
    path = stored(tmp_path, Image.fromarray(PICTURE)).rename(tmp_path / "photo.jpeg")
    np.testing.assert_array_equal(read_grey(path), PICTURE)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, PICTURE),
        (2, PICTURE[:, ::-1]),
        (3, PICTURE[::-1, ::-1]),
        (4, PICTURE[::-1]),
        (5, PICTURE.T),
        (6, np.rot90(PICTURE, -1)),
        (7, PICTURE[::-1, ::-1].T),
        (8, np.rot90(PICTURE)),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_exif_says_which_way_is_up(tmp_path, suffix, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(PICTURE)
    path = stored(tmp_path, image, suffix, exif=exif, **FORMATS[suffix])
    np.testing.assert_array_equal(read_grey(path), upright)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparent_pixels_become_white(tmp_path, mode):
    """Black everywhere, but opaque only in one half."""
    alpha = np.zeros((4, 6), np.uint8)
    alpha[:, :3] = 255
    if mode == "P":
        image = Image.fromarray((alpha == 0).astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 0, 0, 0])
        path = stored(tmp_path, image, transparency=1)
    else:
        image = Image.new(mode[:-1], (6, 4), 0)
        image.putalpha(Image.fromarray(alpha))
        path = stored(tmp_path, image)
    np.testing.assert_array_equal(read_grey(path), 255 - alpha)


def test_a_partly_transparent_pixel_is_partly_dark(tmp_path):
    image = Image.new("LA", (1, 1), (0, 51))
    assert read_grey(stored(tmp_path, image)).tolist() == [[204]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled(tmp_path, suffix):
    values = PICTURE.astype(np.uint16) * 257
    values[0, 1] += 100  # less than half a step
    path = stored(tmp_path, Image.fromarray(values), suffix)
    np.testing.assert_array_equal(read_grey(path), PICTURE)


@pytest.mark.parametrize("least, greatest", [(0, 1), (-3e30, 5e30), (0, 2**31 - 1)])
def test_32_bits_are_stretched(tmp_path, least, greatest):
    share = (PICTURE - PICTURE.min()) / float(np.ptp(PICTURE))
    values = least + share * (greatest - least)
    dtype = np.int32 if greatest > 2**30 and least == 0 else np.float32
    path = stored(tmp_path, Image.fromarray(values.astype(dtype)), "tif")
    np.testing.assert_allclose(read_grey(path), 255 * share, atol=0.51)
    blank = np.full((4, 6), least, dtype)
    assert not read_grey(stored(tmp_path, Image.fromarray(blank), "tif")).any()


@pytest.mark.parametrize("grey", [180, 255])
def test_light_ink_on_nothing_is_put_on_black(tmp_path, grey):
    alpha = np.zeros((40, 60), np.uint8)
    alpha[10:30, 20:24] = 255
    alpha[10:30, 24] = 90  # a soft rim
    image = Image.new("RGB", (60, 40), (grey,) * 3)
    image.putalpha(Image.fromarray(alpha))
    found = read_grey(stored(tmp_path, image))
    np.testing.assert_allclose(found, alpha * (grey / 255), atol=1)


def test_sixteen_bits_with_one_transparent_grey(tmp_path):
    values = PICTURE.astype(np.uint16) * 257
    path = stored(tmp_path, Image.fromarray(values), transparency=30 * 257)
    expected = np.where(PICTURE == 30, 255, PICTURE)
    np.testing.assert_array_equal(read_grey(path), expected)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("1", "png"), ("P", "bmp"), ("CMYK", "tif"), ("CMYK", "jpg")]
)
def test_white_stays_white(tmp_path, mode, suffix):
    image = Image.new("RGB", (6, 4), "white").convert(mode)
    assert read_grey(stored(tmp_path, image, suffix)).min() >= 254


# --- Refused files ---


def refused(path, reason):
    with pytest.raises(decode.PhotoError, match=reason) as caught:
        decode.read(path)
    assert str(path) in str(caught.value) and str(caught.value).isprintable()


def png_header(width, height):
    """Builds a PNG that announces this size, one bit per pixel, and has no pixels."""
    header = b"IHDR" + struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, data, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiled_tiff(side):
    """Builds a TIFF of 16 × 16 pixels in one tile of this side."""
    tags = {256: 16, 257: 16, 258: 8, 259: 5, 262: 1, 277: 1, 322: side, 323: side}
    tags |= {324: 8, 325: 8}
    entries = [struct.pack("<2H2I", tag, 4, 1, value) for tag, value in tags.items()]
    count = struct.pack("<H", len(entries))
    return b"II*\0" + struct.pack("<I", 8) + count + b"".join(entries) + bytes(4)


@pytest.mark.parametrize("size", [(100_000, 100_000), (10_000, 6_000), (40_000, 10)])
def test_too_many_pixels_are_refused_by_the_header(tmp_path, monkeypatch, size):
    def fail(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(decode, "_decode", fail)
    (tmp_path / "bomb.png").write_bytes(png_header(*size))
    refused(tmp_path / "bomb.png", "pixels; expected a PNG.* scale it down")


MEMORY = """
import sys
from pathlib import Path
import cv2
from data import decode
from photos import segment

def peak():  # in KiB; getrusage would count the parent process, too
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

before = peak()
segment.find(cv2.cvtColor(decode.read(Path(sys.argv[1])).pixels, cv2.COLOR_RGB2GRAY))
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="not Linux")
@pytest.mark.parametrize("mode", ["RGBA", "I;16"])
def test_the_largest_photo_takes_bounded_memory(tmp_path, mode):
    """50 million pixels to rotate, in a file of 80 kB; it once took 985 MB and 21 s."""
    dtype, channels = (np.uint16, ()) if mode == "I;16" else (np.uint8, (len(mode),))
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.full((5000, 10_000, *channels), 200, dtype)
    image = Image.fromarray(pixels)
    path = stored(tmp_path, image, exif=exif, compress_level=1)
    done = command("-c", MEMORY, path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) / 1024 < 350  # MiB; we measured 235


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_large_photo_is_halved(tmp_path, monkeypatch, suffix):
    grey = np.repeat(np.repeat(PICTURE, 16, 0), 16, 1)
    monkeypatch.setattr(decode, "_STRIP_PIXELS", 200)
    for add in (0, 1):  # also with an odd side
        path = stored(tmp_path, Image.fromarray(np.pad(grey, (0, add), "edge")), suffix)
        monkeypatch.setattr(decode, "LARGE_PIXELS", grey.size + 1000)
        whole = read_grey(path)
        assert whole.shape == (64 + add, 96 + add)
        monkeypatch.setattr(decode, "LARGE_PIXELS", grey.size - 1)
        pixels, scale = decode.read(path)
        assert scale == 2 and pixels.shape == (32 + add, 48 + add, 3)
        expected = np.repeat(np.repeat(PICTURE, 8, 0), 8, 1).astype(int)
        assert np.abs(pixels[:32, :48, 0] - expected).max() <= 2 * (suffix == "jpg")


def test_boxes_in_a_halved_photo_are_in_pixels_of_the_file(tmp_path, monkeypatch):
    page = np.full((300, 400), 255, np.uint8)
    page[100:200, 140:152] = 0
    path = stored(tmp_path, Image.fromarray(page))

    def box():
        sure = tf.one_hot([3], 10) * 9
        page = reading.read(lambda images: tf.repeat(sure, len(images), 0), path)
        (found,) = page.readings
        return found.box

    whole = box()
    monkeypatch.setattr(decode, "LARGE_PIXELS", page.size - 1)
    assert np.abs(np.subtract(whole, box())).max() <= 2
    drawn = annotate.draw(decode.read(path).pixels, [], 2)
    assert drawn.shape == (150 * 4, 200 * 4, 3)  # enlarged, as it is small


def test_webp_has_a_lower_limit(tmp_path, monkeypatch):
    """Pillow's decoder holds the picture three times."""
    path = stored(tmp_path, Image.fromarray(PICTURE), "webp")
    monkeypatch.setattr(decode, "MAX_HEAVY_PIXELS", PICTURE.size - 1)
    refused(path, "of at most 23 pixels, and")


def test_a_jpeg_of_many_scans_is_refused(tmp_path):
    path = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path, progressive=True)
    decode.read(path)
    content = path.read_bytes()
    last = content.rindex(b"\xff\xda")
    path.write_bytes(content[:last] + 70 * content[last:-2] + content[-2:])
    refused(path, "scans than a JPEG needs")


def test_a_tile_counts_with_all_its_pixels(tmp_path):
    (tmp_path / "bomb.tif").write_bytes(tiled_tiff(65_520))
    refused(tmp_path / "bomb.tif", "scale it down")
    (tmp_path / "small.tif").write_bytes(tiled_tiff(16))
    refused(tmp_path / "small.tif", "damaged")  # it has no pixels


def test_a_file_with_too_many_bytes_is_refused(tmp_path, monkeypatch):
    path = stored(tmp_path, Image.fromarray(PICTURE))
    monkeypatch.setattr(decode, "MAX_BYTES", path.stat().st_size - 1)
    refused(path, "more than .* bytes")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_truncated_photos_are_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = stored(tmp_path, Image.fromarray(noise), suffix)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, "damaged|not a photo")


@pytest.mark.parametrize("content", [b"", b"7 3 1\n", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "photo.png").write_bytes(content)
    refused(tmp_path / "photo.png", "not a photo; expected a PNG, JPEG|damaged")


def test_gif_is_not_supported(tmp_path):
    refused(stored(tmp_path, Image.fromarray(PICTURE), "gif"), "not a photo")


def test_values_that_are_not_finite_are_refused(tmp_path):
    for value in (np.nan, np.inf):
        values = PICTURE.astype(np.float32)
        values[1, 1] = value
        refused(stored(tmp_path, Image.fromarray(values), "tif"), "not finite|damaged")


def test_heic_without_its_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(decode.importlib.util, "find_spec", lambda name: None)
    path = tmp_path / "photo.jpg"  # as some telephones name it
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    refused(
        path, "a HEIC file, which needs the extra heic: install it as BUILD.md says"
    )


def test_heic(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    grey = np.kron(PICTURE, np.ones((16, 16), np.uint8))
    path = tmp_path / "photo.heic"
    heif = pillow_heif.from_bytes(
        "RGB", grey.shape[::-1], np.dstack([grey] * 3).tobytes()
    )
    heif.save(path, quality=-1)
    assert np.abs(read_grey(path).astype(int) - grey).max() <= 3
    path.write_bytes(path.read_bytes()[:-200])
    refused(path, "damaged")
    path.write_bytes(path.read_bytes()[:100])
    refused(path, "damaged|not a photo")


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "photo.png", "No such file")


# --- Names ---


def test_files_folders_and_patterns_are_expanded(tmp_path):
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt", "c.tiff"):
        (tmp_path / name).touch()
    a, b, c = (tmp_path / name for name in ("a.jpg", "b.PNG", "c.tiff"))
    assert decode.expand([str(tmp_path)]) == [a, b, c]
    assert decode.expand([f"{tmp_path}/*"]) == [a, b, c]
    assert decode.expand([f"{tmp_path}/[bc]*", str(a), str(b)]) == [b, c, a]
    # A file named explicitly is tried, whatever its suffix.
    assert decode.expand([str(tmp_path / "notes.txt")]) == [tmp_path / "notes.txt"]


def test_a_file_may_have_a_star_in_its_name(tmp_path):
    (tmp_path / "[1]*.png").touch()
    assert decode.expand([f"{tmp_path}/[1]*.png"]) == [tmp_path / "[1]*.png"]


@pytest.mark.parametrize("name", ["a" * 300, "*" * 300])
def test_impossible_file_names_are_refused(name):
    """They are refused when the file is read, or as a pattern without a match."""
    with pytest.raises(decode.PhotoError, match="too long|no picture in this pattern"):
        for path in decode.expand([name]):
            decode.read(path)


def test_folders_and_patterns_without_pictures_are_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(decode.PhotoError, match="no picture in this folder"):
        decode.expand([str(tmp_path)])
    with pytest.raises(decode.PhotoError, match="no picture in this pattern"):
        decode.expand([f"{tmp_path}/*.png"])
