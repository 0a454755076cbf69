# SPDX-License-Identifier: Apache-2.0
"""How far the online transforms go: settings and flags, without loading TensorFlow."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import flags

from system import cli, errors


@dataclasses.dataclass(frozen=True)
class OnlineSettings:
    """How far each image is transformed at most; 0 leaves a transform out.

    Bounds of the affine ones mean what they mean to Keras' ImageDataGenerator, but the
    images differ a little. Keras zooms by 1 / (1 + u), not 1 + u; transforms in the
    order rotation, shift, shear, zoom, not zoom, shear, rotation, shift; slants by the
    sine of an angle, not its tangent, and lengthens; does not round to whole grey
    levels; and repeats the border where we have 0, which shows where there is ink on
    it, as in 813 of MNIST's 60,000 training images.

    Attributes:
      rotation: degrees; by an angle in ±rotation.
      zoom: share; width and height by factors in 1 ± zoom, a draw for each.
      shift: share of the side; along each axis by up to ±shift, a draw for each.
      shear: degrees; upright strokes are slanted by an angle in ±shear.
      elastic_alpha: pixels; factor of the smoothed displacements.
      elastic_sigma: pixels; standard deviation of the Gaussian that smooths them.
    """

    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    elastic_alpha: float = 0.0
    elastic_sigma: float = 0.0


class _Flag(NamedTuple):
    most: float
    unit: str
    label: str
    help: str


# A transform with several settings has the part before their underscore in common.
_FLAGS = {
    "rotation": _Flag(
        180, "degrees", "rotation ±{:g}°", "Online: rotates each image by up to ±this"
    ),
    "zoom": _Flag(
        0.9, "as a share", "zoom 1 ± {:g}", "Online: zooms each axis by 1 ± up to this"
    ),
    "shift": _Flag(
        1, "of the side", "shift ±{:g}", "Online: shifts along each axis by up to ±this"
    ),
    "shear": _Flag(
        80, "degrees", "shear ±{:g}°", "Online: slants each image by up to ±this"
    ),
    "elastic_alpha": _Flag(
        1000, "pixels", "elastic α {:g}", "Online elastic deformation: its strength"
    ),
    "elastic_sigma": _Flag(
        28, "pixels", "σ {:g}", "Online elastic deformation: how smooth it is"
    ),
}
_ELASTIC = ["elastic_alpha", "elastic_sigma"]


def define_flags() -> None:
    """Defines a flag for each of the settings."""
    for name, flag in _FLAGS.items():
        text = f"{flag.help}, 0 to {flag.most:g} {flag.unit}; 0 for none."
        flags.DEFINE_float(name, getattr(OnlineSettings(), name), text)
        check = functools.partial(_check_range, name)
        flags.register_validator(name, cli.validator(check))
    flags.register_multi_flags_validator(_ELASTIC, cli.validator(_check_elastic))


def settings_from(values: Mapping[str, Any]) -> OnlineSettings:
    """Turns the values of the flags, or the same stored as JSON, into settings.

    Raises:
      errors.UserError: on a value that no setting can have.
    """
    for name in _FLAGS:
        _check_range(name, values[name])
    _check_elastic(values)
    return OnlineSettings(**{name: float(values[name]) for name in _FLAGS})


def _check_range(name: str, value: float) -> None:
    flag = _FLAGS[name]
    if not 0 <= value <= flag.most:  # so written, it refuses NaN too
        raise errors.UserError(
            f"{name} must be 0 to {flag.most:g} {flag.unit}, got {value}"
        )


def _check_elastic(values: Mapping[str, Any]) -> None:
    if bool(values["elastic_alpha"]) != bool(values["elastic_sigma"]):
        raise errors.UserError(
            "elastic_alpha and elastic_sigma must both be above 0, or both 0 for no "
            f"deformation, got {values['elastic_alpha']} and {values['elastic_sigma']}"
        )


def each_alone(settings: OnlineSettings) -> list[tuple[str, OnlineSettings]]:
    """Lists the transforms that are on: a label, and settings with it alone on."""
    values = dataclasses.asdict(settings)
    on = [name for name in _FLAGS if values[name]]
    alone = []
    for _, group in itertools.groupby(on, lambda name: name.partition("_")[0]):
        names = list(group)
        label = ", ".join(_FLAGS[name].label.format(values[name]) for name in names)
        alone.append((label, OnlineSettings(**{name: values[name] for name in names})))
    return alone
