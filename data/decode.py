# SPDX-License-Identifier: Apache-2.0
"""Decodes photos and scans to upright RGB pixels, on white where they are transparent.

Pillow decodes PNG, JPEG, WebP, BMP and TIFF, and reads a header without the rest; with
the extra `heic`, libheif decodes HEIC, as telephones take. If a file has several
pictures, we take the first. Files may come from anybody; SECURITY.md lists the limits.
"""

import glob
import importlib.util
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
HEIC_SUFFIXES = (".heic", ".heif")
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"),
    *HEIC_SUFFIXES,
)
EXPECTED = "expected a PNG, JPEG, WebP, BMP, TIFF or HEIC file"

MAX_BYTES = 1 << 28
MAX_PIXELS = 50_000_000  # as large phone cameras have
MAX_SIDE_PIXELS = 30_000  # some of OpenCV's operations stop at 32,767
LARGE_PIXELS = 10_000_000  # we read larger pictures at half their size
MAX_HEAVY_PIXELS = 16_000_000  # of formats whose decoders hold the picture three times


class Photo(NamedTuple):
    """A decoded photo."""

    pixels: np.ndarray  # uint8 [H, W, 3], RGB, upright
    scale: int  # 2 if the photo was large and therefore halved each way, else 1


class PhotoError(errors.UserError):
    """A file that is missing, damaged, too large, or not a photo."""


def expand(names: Iterable[str]) -> list[Path]:
    """Expands names of files, folders and patterns such as `*.jpg` to files.

    From folders and patterns we take only files with a picture's suffix, sorted. Each
    file comes once, in the order of the names. Raises PhotoError if a folder or pattern
    holds no picture.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        # Path.is_dir raises if a folder above may not be searched.
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
                f"{name}: no picture in this {kind}; expected files ending in"
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


# What Pillow raises for damaged files.
_DAMAGE = (
    *(OSError, ValueError, TypeError, LookupError, EOFError, SyntaxError),
    *(AttributeError, RuntimeError, ArithmeticError, MemoryError, struct.error),
)


def read(path: Path) -> Photo:
    """Reads a photo, after checking its size by its header; its suffix does not matter.

    The photo is turned upright by its EXIF data. Transparency becomes white, or black
    if all ink is light; 16 bits become 8, and so do 32, from the least value to the
    greatest. Photos of more than `LARGE_PIXELS` are halved each way: their digits stay
    large enough, and all later work takes a quarter of the memory and time.

    Raises PhotoError if the file cannot be read, is damaged, too large, or not a photo.
    """
    # Imported here, because importing `data` should not pay for loading Pillow.
    from PIL import Image

    content = _content(path)
    formats = [*FORMATS, *_heif(path, content)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oddities that Pillow can read
            with Image.open(io.BytesIO(content), formats=formats) as image:
                _check_size(path, image)
                if image.format in ("JPEG", "MPO") and _has_many_scans(content):
                    raise ValueError("far more scans than a JPEG needs")
                return _decode(image)
    except Image.UnidentifiedImageError:
        raise PhotoError(
            f"{path}: not a photo; {EXPECTED}; convert it to one"
        ) from None
    except Image.DecompressionBombError:
        raise PhotoError(
            f"{path}: far more than {MAX_PIXELS:,} pixels; {EXPECTED} of at most that"
            " many; scale it down"
        ) from None
    except _DAMAGE as error:
        raise PhotoError(
            f"{path}: damaged ({console.one_line(str(error))[:200]}); {EXPECTED}; copy"
            " or save it again"
        ) from None


_HEIC_BRAND = re.compile(
    rb"....ftyp(heic|heix|hevc|hevx|heim|heis|mif1|msf1)", re.DOTALL
)


def _heif(path: Path, content: bytes) -> list[str]:
    """Pillow's name of the format HEIC, if this is such a file.

    Raises PhotoError without the package that decodes it.
    """
    if not _HEIC_BRAND.match(content):
        return []
    if not importlib.util.find_spec("pillow_heif"):
        raise PhotoError(
            f"{path}: a HEIC file, which needs the extra heic: install it as BUILD.md"
            " says, or convert the file to JPEG"
        )
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    return ["HEIF"]


def _content(path: Path) -> bytes:
    try:
        with untrusted.open_file(path) as file:
            # read(MAX_BYTES + 1) would allocate that much.
            size = os.fstat(file.fileno()).st_size
            content = file.read(size) if size <= MAX_BYTES else None
    except OSError as error:
        raise PhotoError(
            f"{path}: cannot be read ({error.strerror}); {EXPECTED}; check the path"
        ) from None
    if content is None:
        raise PhotoError(
            f"{path}: more than {MAX_BYTES:,} bytes; {EXPECTED} of at most that many;"
            " scale it down"
        )
    return content


_TILE_WIDTH_TAG, _TILE_HEIGHT_TAG = 322, 323  # of TIFF


def _check_size(path: Path, image: "Image.Image") -> None:
    """Raises PhotoError if the header announces too many pixels."""
    width, height = image.size
    # Tiles are decoded whole, even where they stick out of the picture.
    tags = getattr(image, "tag_v2", {})
    tile = int(tags.get(_TILE_WIDTH_TAG, 0)) * int(tags.get(_TILE_HEIGHT_TAG, 0))
    limit = MAX_HEAVY_PIXELS if image.format in ("WEBP", "HEIF") else MAX_PIXELS
    if max(width * height, tile) > limit or max(width, height) > MAX_SIDE_PIXELS:
        raise PhotoError(
            f"{path}: {width:,} × {height:,} pixels; {EXPECTED} of at most {limit:,}"
            f" pixels, and {MAX_SIDE_PIXELS:,} a side; scale it down"
        )


_MAX_SCANS = 64  # of a JPEG; each takes as long as a picture
_MAX_MARKERS = 2000
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = (0x01, 0xD8)


def _has_many_scans(content: bytes) -> bool:
    """Tells whether a JPEG has more scans or markers than any camera writes."""
    scans, start = 0, 0
    for _ in range(_MAX_MARKERS):
        marker = _MARKER.search(content, start)
        if marker is None or (code := marker[0][1]) == _END:
            return False
        start = marker.end()
        if code not in _WITHOUT_LENGTH:
            start += int.from_bytes(content[start : start + 2], "big")
        scans += code == _SCAN
        if scans > _MAX_SCANS:
            return True
    return True


_STRIP_PIXELS = 1_000_000
_ORIENTATION_TAG = 0x0112  # of EXIF
_TURN_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda picture: picture[:, ::-1],
    3: lambda picture: picture[::-1, ::-1],
    4: lambda picture: picture[::-1],
    5: lambda picture: picture.swapaxes(0, 1),
    6: lambda picture: np.rot90(picture, -1),
    7: lambda picture: picture[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


def _decode(image: "Image.Image") -> Photo:
    """Decodes an opened picture; raises one of _DAMAGE if that fails."""
    width, height = image.size
    scale = 2 if width * height > LARGE_PIXELS else 1
    if scale > 1:
        image.draft(None, (width // scale, height // scale))  # halves a JPEG
    step = scale if image.size == (width, height) else 1
    image.load()
    width, height = image.size  # loading turned a TIFF upright
    paper, extremes = _paper(image), _extremes(image)
    pixels = np.empty((-(-height // step), -(-width // step), 3), np.uint8)
    # In strips, as each conversion copies 4 bytes per pixel.
    rows = step * max(1, _STRIP_PIXELS // (step * width))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows)))
        strip = _in_rgb(strip, paper, extremes)
        strip = strip.reduce(step) if step > 1 else strip
        start = top // step
        pixels[start : start + strip.height] = np.asarray(strip)
    turn = _TURN_UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
    return Photo(np.ascontiguousarray(turn(pixels)) if turn else pixels, scale)


_DARK_GREY = 128
_DARK_SHARE = 1e-3  # of what can be seen, at least, if there is dark ink
_SMALL_SIDE_PIXELS = 1000


def _paper(image: "Image.Image") -> str:
    """Colour to put behind a transparent picture: one on which its ink can be seen."""
    from PIL import Image

    if not image.has_transparency_data or image.mode.startswith("I;16"):
        return "white"
    width, height = image.size
    step = max(1, max(width, height) // _SMALL_SIDE_PIXELS)
    # Some of the pixels: a mean of all would take four more bytes for each.
    small = image.resize(
        (-(-width // step), -(-height // step)), Image.Resampling.NEAREST
    )
    grey, alpha = (np.asarray(band, np.float64) for band in small.convert("LA").split())
    dark = alpha[grey < _DARK_GREY].sum()
    return "white" if dark >= _DARK_SHARE * alpha.sum() else "black"


def _extremes(image: "Image.Image") -> tuple[float, float]:
    """The least and the greatest value of a picture with 32 bits per pixel."""
    if image.mode not in ("I", "F"):
        return 0, 0
    least, greatest = np.asarray(image.getextrema(), np.float64).tolist()
    return least, greatest


def _in_rgb(
    image: "Image.Image", paper: str, extremes: tuple[float, float]
) -> "Image.Image":
    """Converts a picture of any mode to RGB, on paper; see `_paper`, `_extremes`."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = _from_16_bits(image)
    elif image.mode in ("I", "F"):
        image = _from_32_bits(image, *extremes)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        under = Image.new("RGB", image.size, paper)
        under.paste(image, mask=image)
        return under
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_32_bits(image: "Image.Image", least: float, greatest: float) -> "Image.Image":
    """Scales 32 bits to 8: nothing says which values are black and white."""
    from PIL import Image

    values = np.asarray(image, np.float64) - least
    if not np.isfinite(values).all():
        raise ValueError("values that are not finite numbers")
    values *= 255 / max(greatest - least, np.finfo(np.float64).tiny)
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def _from_16_bits(image: "Image.Image") -> "Image.Image":
    """Scales 16 bits to 8, with an alpha channel if one grey means transparent."""
    from PIL import Image

    values = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        opaque = np.where(values == clear, 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(opaque))
    return grey
