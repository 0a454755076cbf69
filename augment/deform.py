# SPDX-License-Identifier: Apache-2.0
"""Random deformations of digits, offline: any number of copies, each deformed anew.

After the infinite MNIST of Loosli, Canu and Bottou, "Training Invariant Support Vector
Machines using Selective Sampling", 2007, whose first 8.1 million images, the originals
and 134 copies of each, are known as MNIST8M. The formulas are in augment/geometry.py.
"""

import dataclasses
from collections.abc import Collection

import numpy as np

from augment.geometry import CENTRE, FRAMED, SIDE, grid

KINDS = ("elastic", "affine")

UNITS = 32  # per pixel: the resolution of OpenCV's tables for bilinear sampling

# Few enough that intermediate arrays stay in the processor's cache. OpenCV would allow
# 1,000: its images have at most 32,766 rows.
IMAGES_AT_A_TIME = 128

_AFFINE_DRAWS = 6  # per image
_DRAWS = _AFFINE_DRAWS + 2 * SIDE * SIDE


@dataclasses.dataclass(frozen=True)
class Deformation:
    """Bounds of the random deformations.

    The elastic ones are those of Simard et al. (see augment/geometry.py). The affine
    ones follow Cireşan, Meier, Gambardella and Schmidhuber, "Deep, Big, Simple Neural
    Nets for Handwritten Digit Recognition", 2010, who try 7.5 to 15 degrees and a zoom
    of 15 to 20 %: we take the smallest. They rotate or slant an image, we do both, and
    their elastic deformations are stronger: sigma 5 to 6, alpha 36 to 38. The shift is
    that of the infinite MNIST. The fields mean what those of `OnlineSettings` do, but a
    shift is in pixels.
    """

    elastic_alpha: float = 34.0
    elastic_sigma: float = 4.0
    rotation: float = 7.5
    shear: float = 7.5
    zoom: float = 0.15
    shift: float = 1.0


def deform(
    images: np.ndarray,
    kinds: Collection[str],
    seed: int,
    copy: int,
    how: Deformation = Deformation(),
) -> np.ndarray:
    """Deforms each image, uint8 [N, 28, 28, 1], at random, by some of `KINDS`.

    Random numbers come from Philox (Salmon et al., "Parallel random numbers: as easy as
    1, 2, 3", 2011), with the seed as its key and the copy in the upper half of its
    counter, both 0 to 2⁶⁴ − 1: no two images of any copies share a number. The numbers
    of an image depend neither on `kinds` nor on how many images follow.

    Images are resampled once. Places are rounded to 1/32 pixel and integers are used
    from there on, so that the last bits of another processor or library do not show.
    """
    random = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, copy, 0]))
    result = np.empty_like(images)
    for start in range(0, len(images), IMAGES_AT_A_TIME):
        batch = images[start : start + IMAGES_AT_A_TIME]
        draws = 2 * random.random((len(batch), _DRAWS), np.float32) - 1
        affine, noise = np.split(draws, [_AFFINE_DRAWS], axis=1)
        if "affine" in kinds:
            places = _affine(affine, how)
        else:
            places = np.stack([grid()] * len(batch))
        if "elastic" in kinds:
            places += _elastic(noise.reshape(places.shape), how)
        result[start : start + IMAGES_AT_A_TIME] = _sample(batch, places)
    return result


def _affine(draws: np.ndarray, how: Deformation) -> np.ndarray:
    """Places A p, float32 [N, 2, 28, 28], y and x, for draws [N, 6] in ±1."""
    # One number per image, so doubles cost nothing.
    angle, slant, zoom_y, zoom_x, shift_y, shift_x = draws.T.astype(np.float64)
    angle = np.radians(how.rotation) * angle
    slant = np.tan(np.radians(how.shear) * slant)
    zoom_y, zoom_x = 1 / (1 + how.zoom * zoom_y), 1 / (1 + how.zoom * zoom_x)
    cos, sin = np.cos(angle), np.sin(angle)
    # y ← zoom_y (cos y − sin x), x ← zoom_x (sin y + cos x + slant · that y)
    matrices = np.array(
        [
            [zoom_y * cos, -zoom_y * sin],
            [zoom_x * (sin + slant * cos), zoom_x * (cos - slant * sin)],
        ]
    )
    by_row, by_column = matrices.transpose(1, 2, 0).astype(np.float32)  # [N, 2]
    moved = how.shift * np.stack([shift_y, shift_x])
    fixed = -np.einsum("ijn,jn->ni", matrices, moved).astype(np.float32)
    row, column = grid()
    places = by_row[..., np.newaxis, np.newaxis] * row
    places += by_column[..., np.newaxis, np.newaxis] * column
    return places + fixed[..., np.newaxis, np.newaxis]


def _elastic(noise: np.ndarray, how: Deformation) -> np.ndarray:
    """Displacements d, float32 [N, 2, 28, 28], y and x, for noise of that shape."""
    # Here, because reading an existing set should not pay for loading scipy.
    from scipy import ndimage

    sigma = (0, 0, how.elastic_sigma, how.elastic_sigma)
    blurred = ndimage.gaussian_filter(noise, sigma, mode="constant")
    return np.float32(how.elastic_alpha) * blurred


def _sample(images: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Reads images bilinearly at places, float [N, 2, 28, 28], y and x from the centre.

    OpenCV sees them as one tall image: one below another, each in a frame of 0.
    """
    import cv2

    framed = np.pad(images[..., 0], [(0, 0), (1, 1), (1, 1)])
    # From the corner of the frame; places beyond the frame are moved onto it.
    units = np.rint((places + (CENTRE + 1)) * UNITS)
    units = np.clip(units, 0, (FRAMED - 1) * UNITS).astype(np.int32)
    y, x = units[:, 0], units[:, 1]
    y += FRAMED * UNITS * np.arange(len(images))[:, np.newaxis, np.newaxis]
    # OpenCV wants x and y of the upper left pixel, and both fractions in one number.
    corners = np.stack([x // UNITS, y // UNITS], axis=-1).astype(np.int16)
    fractions = (UNITS * (y % UNITS) + x % UNITS).astype(np.uint16)
    sampled = cv2.remap(
        framed.reshape(-1, FRAMED),
        corners.reshape(-1, SIDE, 2),
        fractions.reshape(-1, SIDE),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return sampled.reshape(images.shape)
