# SPDX-License-Identifier: Apache-2.0
"""Geometry of the random deformations, offline (deform.py) and online (online.py).

Each pixel p of the result, counted from the centre, is read at another place in the
image, bilinearly; beyond the border it is 0:

    result(p) = image(A p + d(p))

A inverts what the eye sees happen to the digit: a zoom by factors z, a slant by an
angle s, a clockwise rotation by an angle r, a shift by t. With x to the right and y
down,

    A p = | 1/zx    0  | | 1  tan s | |  cos r  sin r | (p - t)
          |   0   1/zy | | 0    1   | | -sin r  cos r |

The displacements d are elastic (Simard, Steinkraus and Platt, "Best Practices for
Convolutional Neural Networks Applied to Visual Document Analysis", 2003):

    d = alpha · (noise * Gaussian of sigma),  noise uniform in ±1, per pixel and axis

Their best values are sigma 4 and alpha 34. The paper leaves open how the field is
normalised before alpha multiplies it. Here the Gaussian sums to 1 and nothing else is
done, so sigma 4 and alpha 34 move a pixel by 1.27 along each axis (root mean square
over all pixels): by 1.38 in the middle and less at the border, beyond which the noise
counts as 0.

Offline, the noise is drawn and blurred. Online, displacements with the same variances
and covariances are drawn at a few places and interpolated (`online.elastic`).

The two modules share these formulas but no code: one is numpy and OpenCV, the other a
graph, and the last bit of a result depends on how each product and sum is written.
"""

import numpy as np

SIDE = 28
CENTRE = (SIDE - 1) / 2
FRAMED = SIDE + 2  # with a frame of one pixel, which is 0


def grid() -> np.ndarray:
    """Row y and column x of each pixel from the centre: float32 [2, 28, 28]."""
    return np.indices((SIDE, SIDE), np.float32) - np.float32(CENTRE)
