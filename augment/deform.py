# SPDX-License-Identifier: Apache-2.0
"""Random deformations of digits, offline: as many copies of a set as one asks for.

In the manner of the infinite MNIST of Loosli, Canu and Bottou, "Training Invariant
Support Vector Machines using Selective Sampling", 2007, whose first 8.1 million images
are known as MNIST8M: the originals, and copies of them all, each deformed anew.
"""

import dataclasses
from collections.abc import Collection

import numpy as np

KINDS = ("elastic", "affine")

SIDE = 28
CENTRE = (SIDE - 1) / 2
FRAMED = SIDE + 2  # with a frame of one pixel
PARTS = 32  # of a pixel: as fine as OpenCV's tables for bilinear sampling

# Images at a time: few, so that what is in between stays in the processor's cache.
# OpenCV would take 1,000, for its pictures have at most 32,766 rows.
TOGETHER = 128

_AFFINE_DRAWS = 6  # an image
_DRAWS = _AFFINE_DRAWS + 2 * SIDE * SIDE


@dataclasses.dataclass(frozen=True)
class Deformation:
    """How far the deformations go.

    Elastic as in Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural
    Networks Applied to Visual Document Analysis", 2003. Affine after Cireşan, Meier,
    Gambardella and Schmidhuber, "Deep, Big, Simple Neural Nets for Handwritten Digit
    Recognition", 2010, with the smallest of their bounds: 7.5 of 7.5 to 15 degrees, 15
    of 15 to 20 % of zoom. Theirs for elastic are larger, sigma 5 to 6 and alpha 36 to
    38. They turn or slant an image, we do both; the shift is the infinite MNIST's.

    Attributes:
      elastic_alpha: pixels; factor of the smoothed displacements.
      elastic_sigma: pixels; standard deviation of the Gaussian that smooths them.
      rotation: degrees; by an angle in ±rotation.
      shear: degrees; upright strokes are slanted by an angle in ±shear.
      zoom: share; width and height by factors in 1 ± zoom, a draw for each.
      shift: pixels; along each axis by up to ±shift, a draw for each.
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
    """Deforms each image by draws of its own.

    The draws are those of Philox (Salmon et al., "Parallel random numbers: as easy as
    1, 2, 3", 2011) with the seed as its key and the copy in the upper half of its
    counter: no two images of all the copies share one. They do not depend on `kinds`,
    nor an image's on how many follow it.

    Args:
      images: uint8 [N, 28, 28, 1].
      kinds: some of `KINDS`.
      seed: 0 to 2⁶⁴ − 1.
      copy: number of the copy, 0 to 2⁶⁴ − 1.
      how: how far to go.

    Returns:
      uint8 [N, 28, 28, 1]: sampled once, bilinearly, 0 beyond the border; at places
      of whole 1/32 pixels, and with integers from there on, so that the last bits of
      another processor or library do not show.
    """
    random = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, copy, 0]))
    result = np.empty_like(images)
    for start in range(0, len(images), TOGETHER):
        some = images[start : start + TOGETHER]
        draws = 2 * random.random((len(some), _DRAWS), np.float32) - 1
        affine, noise = np.split(draws, [_AFFINE_DRAWS], axis=1)
        if "affine" in kinds:
            places = _affine(affine, how)
        else:
            places = np.stack([_grid()] * len(some))
        if "elastic" in kinds:
            places += _elastic(noise.reshape(places.shape), how)
        result[start : start + TOGETHER] = _sample(some, places)
    return result


def _grid() -> np.ndarray:
    """Of each pixel its y and x from the centre: float32 [2, 28, 28]."""
    return np.indices((SIDE, SIDE), np.float32) - np.float32(CENTRE)


def _affine(draws: np.ndarray, how: Deformation) -> np.ndarray:
    """Where each pixel of the result is read, by draws [N, 6] in ±1.

    The inverse of what the eye sees: a zoom, a slant, a turn, a shift.

    Returns:
      float32 [N, 2, 28, 28]: y and x from the centre.
    """
    # One number an image, and in doubles as far as the sine.
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
    row, column = _grid()
    places = by_row[..., np.newaxis, np.newaxis] * row
    places += by_column[..., np.newaxis, np.newaxis] * column
    return places + fixed[..., np.newaxis, np.newaxis]


def _elastic(noise: np.ndarray, how: Deformation) -> np.ndarray:
    """Displacements alpha · (noise * Gaussian of sigma), as `augment.online.elastic`.

    The Gaussian sums to 1, and nothing else is normalised: sigma 4 and alpha 34 move a
    pixel by 1.27 along each axis (root mean square), less at the border.

    Args:
      noise: in ±1, float32 [N, 2, 28, 28].
      how: alpha and sigma.

    Returns:
      float32 [N, 2, 28, 28], in pixels: y and x.
    """
    # Here, because reading a set that is built already should not cost its loading.
    from scipy import ndimage

    sigma = (0, 0, how.elastic_sigma, how.elastic_sigma)
    blurred = ndimage.gaussian_filter(noise, sigma, mode="constant")
    return np.float32(how.elastic_alpha) * blurred


def _sample(images: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Reads images at places: uint8 [N, 28, 28, 1].

    All as one picture, one below the other, each in a frame of 0.

    Args:
      images: uint8 [N, 28, 28, 1].
      places: float [N, 2, 28, 28], y and x from the centre, in pixels.
    """
    import cv2

    framed = np.pad(images[..., 0], [(0, 0), (1, 1), (1, 1)])
    # From the corner of the frame; what is beyond it is moved onto it.
    units = np.rint((places + (CENTRE + 1)) * PARTS)
    units = np.clip(units, 0, (FRAMED - 1) * PARTS).astype(np.int32)
    y, x = units[:, 0], units[:, 1]
    y += FRAMED * PARTS * np.arange(len(images))[:, np.newaxis, np.newaxis]
    # As OpenCV has it: x and y of the upper left pixel, and the parts in one number.
    corners = np.stack([x // PARTS, y // PARTS], axis=-1).astype(np.int16)
    fractions = (PARTS * (y % PARTS) + x % PARTS).astype(np.uint16)
    sampled = cv2.remap(
        framed.reshape(-1, FRAMED),
        corners.reshape(-1, SIDE, 2),
        fractions.reshape(-1, SIDE),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return sampled.reshape(images.shape)
