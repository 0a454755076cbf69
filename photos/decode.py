# SPDX-License-Identifier: Apache-2.0
"""Photos and scans of any making → upright pixels on white.

PNG, JPEG, WebP, BMP and TIFF, decoded by Pillow, which reads a header without the rest.
Of a file with several pictures the first is taken. The files may come from anybody:
see SECURITY.md.
"""

import glob
import io
import os
import re
import struct
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from system import console, errors, untrusted

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
EXPECTED = "expected a photo: PNG, JPEG, WebP, BMP or TIFF"

MOST_BYTES = 1 << 28
MOST_PIXELS = 50_000_000  # of a large telephone camera
MOST_SIDE = 30_000  # OpenCV's limit for some operations is 32,767
MOST_SCANS, MOST_MARKERS = 64, 2000  # of a JPEG; a scan takes as long as a picture
LARGE_PIXELS = 16_000_000  # a picture of more is read at half its size
STRIP_PIXELS = 1_000_000  # that are converted at a time

# What Pillow raises at a file that is no sound picture.
_DAMAGE = (
    *(OSError, ValueError, TypeError, LookupError, EOFError, SyntaxError),
    *(AttributeError, RuntimeError, ArithmeticError, MemoryError, struct.error),
)
_TILE_WIDTH, _TILE_HEIGHT = 322, 323  # TIFF tags
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # of JPEG
_SCAN, _END, _BARE = 0xDA, 0xD9, (0x01, 0xD8)  # the last have no length
_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda picture: picture[:, ::-1],
    3: lambda picture: picture[::-1, ::-1],
    4: lambda picture: picture[::-1],
    5: lambda picture: picture.swapaxes(0, 1),
    6: lambda picture: np.rot90(picture, -1),
    7: lambda picture: picture[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


class Photo(NamedTuple):
    """Attributes:
    pixels: uint8 [H, W, 3], RGB, upright.
    scale: pixels of the file, each way, for each of these: 2 for a large one, else 1.
    """

    pixels: np.ndarray
    scale: int


class PhotoError(errors.UserError):
    """A photo that is missing, damaged, too large, or none."""


def expand(names: Iterable[str]) -> list[Path]:
    """The files that names of files, folders and patterns such as `*.jpg` stand for.

    Of a folder, and of what a pattern finds, only files whose suffix is a picture's.

    Returns:
      Each file once, in the order of the names; of a folder or pattern by name.

    Raises:
      PhotoError: a folder or a pattern holds no picture.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        # Not Path's own: that raises where a folder may not be looked into.
        if os.path.isdir(path):
            inside = [path / child for child in _names_in(path)]
        elif glob.has_magic(name) and not os.path.exists(path):
            inside = [Path(match) for match in glob.glob(name, recursive=True)]
        else:
            found[path] = None
            continue
        pictures = [p for p in sorted(inside) if p.suffix.lower() in SUFFIXES]
        if not pictures:
            kind = "folder" if os.path.isdir(path) else "pattern"
            raise PhotoError(
                f"{name}: no picture in this {kind}; expected files that end in"
                f" {', '.join(SUFFIXES)}; check --images"
            )
        found |= dict.fromkeys(pictures)
    return list(found)


def _names_in(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        raise PhotoError(
            f"{folder}: cannot be read ({error.strerror}); check its permissions"
        ) from None


def read(path: Path) -> Photo:
    """Reads a photo; its size is known from its header before anything is decoded.

    Turned as its EXIF data say, transparency laid on white, 16 bits scaled to 8. One of
    more than `LARGE_PIXELS` is halved: its digits are large enough, and whatever is
    done with it takes a quarter of the memory and time.

    Args:
      path: of the file; its suffix does not matter.

    Raises:
      PhotoError: it cannot be read, is no photo, damaged, or too large.
    """
    # Here, because eval.py without photos should not cost the loading of Pillow.
    from PIL import Image

    content = _content(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd but can be read
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check_size(path, image)
                if image.format in ("JPEG", "MPO") and _has_many_scans(content):
                    raise ValueError("far more scans than a JPEG needs")
                return _decode(image)
    except Image.UnidentifiedImageError:
        raise PhotoError(
            f"{path}: no photo; {EXPECTED}; save it as one of these"
        ) from None
    except Image.DecompressionBombError:
        raise PhotoError(
            f"{path}: has far more than {MOST_PIXELS:,} pixels; {EXPECTED} of at most"
            " so many; make it smaller"
        ) from None
    except _DAMAGE as error:
        raise PhotoError(
            f"{path}: damaged ({console.one_line(str(error))[:200]}); {EXPECTED} that"
            " is whole; copy it anew, or save it once more"
        ) from None


def _content(path: Path) -> bytes:
    try:
        with untrusted.open_file(path) as file:
            # Room is made for what is there, and not for all that might be.
            size = os.fstat(file.fileno()).st_size
            content = file.read(size) if size <= MOST_BYTES else None
    except OSError as error:
        raise PhotoError(
            f"{path}: cannot be read ({error.strerror}); {EXPECTED}; check the path"
        ) from None
    if content is None:
        raise PhotoError(
            f"{path}: a file of more than {MOST_BYTES:,} bytes; {EXPECTED} of fewer;"
            " make it smaller"
        )
    return content


def _check_size(path: Path, image: "Image.Image") -> None:
    """Refuses a picture by what its header announces."""
    width, height = image.size
    # A tile is decoded whole, however little of it lies in the picture.
    tags = getattr(image, "tag_v2", {})
    tile = int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_HEIGHT, 0))
    # Of WebP, Pillow's decoder holds the picture three times.
    most = LARGE_PIXELS if image.format == "WEBP" else MOST_PIXELS
    if max(width * height, tile) > most or max(width, height) > MOST_SIDE:
        raise PhotoError(
            f"{path}: has {width:,} × {height:,} pixels; {EXPECTED} of at most"
            f" {most:,}, and {MOST_SIDE:,} a side; make it smaller"
        )


def _has_many_scans(content: bytes) -> bool:
    """Whether a JPEG has more scans, or markers at all, than any camera writes."""
    scans, start = 0, 0
    for _ in range(MOST_MARKERS):
        marker = _MARKER.search(content, start)
        if marker is None or (code := marker[0][1]) == _END:
            return False
        start = marker.end()
        if code not in _BARE:
            start += int.from_bytes(content[start : start + 2], "big")
        scans += code == _SCAN
        if scans > MOST_SCANS:
            return True
    return True


def _decode(image: "Image.Image") -> Photo:
    """The pixels of an opened picture; an error out of _DAMAGE if it is none."""
    width, height = image.size
    scale = 2 if width * height > LARGE_PIXELS else 1
    if scale > 1:
        image.draft(None, (width // scale, height // scale))  # a JPEG can be halved now
    step = scale if image.size == (width, height) else 1
    image.load()
    width, height = image.size  # a TIFF is upright now
    pixels = np.empty((-(-height // step), -(-width // step), 3), np.uint8)
    # In strips, for each way to convert it makes a copy of 4 bytes a pixel.
    rows = step * max(1, STRIP_PIXELS // (step * width))
    for top in range(0, height, rows):
        strip = _in_rgb(image.crop((0, top, width, min(height, top + rows))))
        strip = strip.reduce(step) if step > 1 else strip
        start = top // step
        pixels[start : start + strip.height] = np.asarray(strip)
    turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    return Photo(np.ascontiguousarray(turn(pixels)) if turn else pixels, scale)


def _in_rgb(image: "Image.Image") -> "Image.Image":
    """A picture of any mode in RGB, on white."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = _from_16_bits(image)
    elif image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits, of which nobody says what is white")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=image)
        return paper
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bits(image: "Image.Image") -> "Image.Image":
    """The same in 8 bits, with an alpha channel if one grey stands for transparent."""
    from PIL import Image

    values = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        opaque = np.where(values == clear, 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(opaque))
    return grey
