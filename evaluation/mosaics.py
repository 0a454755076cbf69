# SPDX-License-Identifier: Apache-2.0
"""Mosaics of small pictures: filters, feature maps, misclassified digits.

Like `evaluation.figures`, this module loads matplotlib.
"""

from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from evaluation.figures import WIDTH, styled

MAX_FILTERS = 64
MAX_MAPS = 16
MAX_WORST = 24
TILE = 84  # side in pixels
GAP = 6  # pixels between two tiles


@styled
def filters(kernel: np.ndarray) -> Figure:
    """Weights of the first `MAX_FILTERS` units of a layer, red above 0, blue below.

    The kernel is float [h, w, 1, units], or [784, units] of a dense layer, of which
    each unit is drawn as an image.
    """
    if kernel.ndim == 2:
        kernel = kernel.reshape(28, 28, 1, -1)
    tiles = kernel[:, :, 0, :MAX_FILTERS].transpose(2, 0, 1)  # [units, h, w]
    columns = 8 if len(tiles) > 12 else min(len(tiles), 4)
    tiles = np.concatenate(  # white tiles complete the last row
        [tiles, np.full((-len(tiles) % columns, *tiles.shape[1:]), np.nan)]
    )
    colours = _diverging(np.nanmax(np.abs(tiles)))
    picture = _mosaic(_paint(tiles, colours), columns)
    figure, axes = _picture(picture, WIDTH, bar=0.7)
    axes.set_axis_off()
    figure.colorbar(colours, ax=axes, location="bottom", label="weight", aspect=40)
    return figure


@styled
def feature_maps(images: np.ndarray, maps: np.ndarray) -> Figure:
    """Outputs of a first layer for a few digits.

    Args:
      images: uint8 [N, 28, 28, 1].
      maps: float [N, h, w, C], of which the first `MAX_MAPS` follow their digit in a
        row; or [N, units] of a dense layer, of which the first `MAX_FILTERS` make one
        picture below their digit, in rows of eight.
    """
    dense = maps.ndim == 2
    maps = _tiles_of(maps)
    colours = _diverging(np.abs(maps).max())
    painted = _paint(maps, colours)
    ink = np.repeat(255 - images, 3, axis=-1)  # [N, 28, 28, 3]
    tiles = np.array(
        [
            [_tile(image), *(_tile(tile) for tile in row)]
            for image, row in zip(ink, painted, strict=True)
        ]
    )  # [N, 1 + C, TILE, TILE, 3]
    if dense:
        tiles = tiles.swapaxes(0, 1)
    columns = tiles.shape[1]
    picture = _mosaic(tiles.reshape(-1, *tiles.shape[2:]), columns)
    figure, axes = _picture(picture, max(WIDTH, 0.55 * columns), bar=1.15)
    axes.set_yticks([])
    axes.set_xticks([])
    if not dense:
        axes.xaxis.tick_top()
        middles = (np.arange(columns) + 0.5) * (TILE + GAP)
        axes.set_xticks(middles, ["digit", *map(str, range(1, columns))])
    figure.colorbar(colours, ax=axes, location="bottom", label="output", aspect=40)
    return figure


def maps_alone(maps: np.ndarray, columns: int = 4) -> np.ndarray:
    """The maps of `feature_maps` for one image as a picture, uint8 [H, W, 3].

    The maps are float [h, w, C], or [units] of a dense layer.
    """
    (tiles,) = _tiles_of(maps[np.newaxis])
    painted = _paint(tiles, _diverging(np.abs(tiles).max()))
    columns = min(columns, len(painted))
    white = np.full((-len(painted) % columns, *painted.shape[1:]), 255, np.uint8)
    return _mosaic(np.concatenate([painted, white]), columns)


def _tiles_of(maps: np.ndarray) -> np.ndarray:
    """Maps to draw, [N, C, h, w], of [N, h, w, C] or [N, units], in rows of eight."""
    if maps.ndim == 2:
        units = maps[:, :MAX_FILTERS]
        units = np.pad(units, [(0, 0), (0, -units.shape[1] % 8)])
        maps = units.reshape(len(maps), -1, 8, 1)
    return maps[..., :MAX_MAPS].transpose(0, 3, 1, 2)


@styled
def worst_errors(
    images: np.ndarray, captions: Sequence[str], columns: int = 6
) -> Figure:
    """The first `MAX_WORST` of some misclassified digits, with captions below."""
    count = min(len(images), MAX_WORST)
    rows = -(-count // columns)
    figure = Figure(figsize=(1.1 * columns, 1.5 * rows))
    # One panel: to make and lay out one for each digit takes ten times as long.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    widest = max(len(line) for caption in captions for line in caption.splitlines())
    font = min(8, 120 / widest)  # 20 letters of 6 points fill a column
    for number, (image, caption) in enumerate(zip(images[:count], captions)):
        x, y = 33 * (number % columns), 45 * (number // columns)  # in a digit's pixels
        place = (x + 2.5, x + 30.5, y + 30, y + 2)
        ink = 255 - image[..., 0]
        axes.imshow(ink, cmap="gray", vmin=0, vmax=255, extent=place)
        axes.text(x + 16.5, y + 31, caption, ha="center", va="top", fontsize=font)
    axes.set(xlim=(0, 33 * columns), ylim=(45 * rows, 0))
    return figure


def _diverging(limit: float) -> ScalarMappable:
    """Colours from blue at −`limit` over white at 0 to red at `limit`; NaN is white."""
    limit = limit or 1  # if all is 0: a scale from 0 to 0 has no middle
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="white")
    return ScalarMappable(Normalize(-limit, limit), colours)


def _paint(values: np.ndarray, colours: ScalarMappable) -> np.ndarray:
    """Float [...] → uint8 [..., 3]."""
    # colours.to_rgba would take [N, 3, 3] for a colour image.
    return np.asarray(colours.cmap(colours.norm(values), bytes=True))[..., :3]


def _tile(tile: np.ndarray) -> np.ndarray:
    """Enlarges uint8 [h, w, 3] to a tile with sharp pixels."""
    return cv2.resize(tile, (TILE, TILE), interpolation=cv2.INTER_NEAREST)


def _mosaic(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Arranges uint8 [N, h, w, 3] in rows with white gaps: uint8 [H, W, 3]."""
    large = np.array([_tile(tile) for tile in tiles])
    gaps = [(0, 0), (GAP // 2, GAP // 2), (GAP // 2, GAP // 2), (0, 0)]
    framed = np.pad(large, gaps, constant_values=255)
    side = TILE + GAP
    grid = framed.reshape(-1, columns, side, side, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(-1, columns * side, 3)


def _picture(picture: np.ndarray, width: float, bar: float) -> tuple[Figure, Axes]:
    """A figure of uint8 [H, W, 3], with `bar` more inches for a colour bar."""
    height = width * picture.shape[0] / picture.shape[1] + bar
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.imshow(picture)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure, axes
