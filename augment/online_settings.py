# SPDX-License-Identifier: Apache-2.0
"""Settings of the online transforms and their limits; does not load TensorFlow."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from system import errors


@dataclasses.dataclass(frozen=True)
class OnlineSettings:
    """Bounds of the random transforms of an image; 0 turns a transform off.

    The affine bounds mean the same as in Keras' ImageDataGenerator, but the images
    differ a little. Keras zooms by 1 / (1 + u), not 1 + u; transforms in the order
    rotation, shift, shear, zoom, not zoom, shear, rotation, shift; slants by the sine
    of an angle, not its tangent, and lengthens the stroke; does not round to whole grey
    levels; and repeats the border where we have 0, which shows only if there is ink on
    it, as in 813 of MNIST's 60,000 training images.
    """

    rotation: float = 0.0  # largest angle, in degrees, either way
    zoom: float = 0.0  # width and height change by factors in 1 ± zoom, a draw for each
    # Largest shift along each axis, as a share of the side, either way.
    shift: float = 0.0
    shear: float = 0.0  # largest slant of an upright stroke, in degrees, either way
    elastic_alpha: float = 0.0  # factor of the smoothed displacements, in pixels
    # Standard deviation of the smoothing Gaussian, in pixels.
    elastic_sigma: float = 0.0


class _Flag(NamedTuple):
    """Limit of a setting, its label in a preview, and its help text."""

    limit: float
    unit: str
    label: str
    help: str


# Settings of one transform share the word before the underscore.
_FLAGS = {
    "rotation": _Flag(
        180, "degrees", "rotation ±{:g}°", "Rotate each image at random by up to ±this"
    ),
    "zoom": _Flag(
        0.9, "as a share", "zoom 1 ± {:g}", "Zoom each axis at random by 1 ± up to this"
    ),
    "shift": _Flag(
        1, "of the side", "shift ±{:g}", "Shift each image at random by up to ±this"
    ),
    "shear": _Flag(
        80, "degrees", "shear ±{:g}°", "Slant each image at random by up to ±this"
    ),
    "elastic_alpha": _Flag(
        1000, "pixels", "elastic α {:g}", "Strength of random elastic deformations"
    ),
    "elastic_sigma": _Flag(
        28, "pixels", "σ {:g}", "Smoothness of random elastic deformations"
    ),
}


def help_text(name: str) -> str:
    """Text of a setting for --help, with its limit."""
    flag = _FLAGS[name]
    return f"{flag.help}, each step: 0 (off) to {flag.limit:g} {flag.unit}."


def checks(name: str) -> Callable[[float], None]:
    """Returns a function that raises UserError at a wrong value of one setting."""
    return functools.partial(_check_range, name)


def settings_from(config: Any) -> OnlineSettings:
    """The online settings of a run, attributes of `config`; UserError if wrong."""
    for name in _FLAGS:
        _check_range(name, getattr(config, name))
    check_elastic(config)
    return OnlineSettings(**{name: float(getattr(config, name)) for name in _FLAGS})


def _check_range(name: str, value: float) -> None:
    flag = _FLAGS[name]
    if not 0 <= value <= flag.limit:  # so written, it refuses NaN too
        raise errors.UserError(
            f"{name} must be 0 to {flag.limit:g} {flag.unit}, got {value}"
        )


def check_elastic(config: Any) -> None:
    """Raises UserError if only one of the two elastic settings is on."""
    alpha, sigma = config.elastic_alpha, config.elastic_sigma
    if bool(alpha) != bool(sigma):
        raise errors.UserError(
            "elastic_alpha and elastic_sigma must both be above 0, or both be 0, got"
            f" {alpha} and {sigma}"
        )


def each_alone(settings: OnlineSettings) -> list[tuple[str, OnlineSettings]]:
    """Labels of the transforms that are on, with settings that turn on each alone."""
    values = dataclasses.asdict(settings)
    on = [name for name in _FLAGS if values[name]]
    alone = []
    for _, group in itertools.groupby(on, lambda name: name.partition("_")[0]):
        names = list(group)
        label = ", ".join(_FLAGS[name].label.format(values[name]) for name in names)
        alone.append((label, OnlineSettings(**{name: values[name] for name in names})))
    return alone
