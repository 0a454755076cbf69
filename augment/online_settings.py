# SPDX-License-Identifier: Apache-2.0
"""Settings of the online transforms and their limits; does not load TensorFlow."""

import dataclasses
import itertools
from typing import Any

from system import errors
from system.settings import setting


def _bound(limit: float, unit: str, label: str, text: str) -> Any:
    """A field with its largest value, its label in a preview and its help text."""

    def check(value: float) -> None:
        if not 0 <= value <= limit:  # so written, it refuses NaN too
            raise errors.UserError(f"must be 0 to {limit:g} {unit}, got {value}")

    text = f"{text}, each step: 0 (off) to {limit:g} {unit}."
    return setting(0.0, text, check=check, label=label)


@dataclasses.dataclass(frozen=True)
class OnlineSettings:
    """Bounds of the random transforms of an image; 0 turns a transform off.

    The affine bounds mean the same as in Keras' ImageDataGenerator, but the images
    differ a little. Keras zooms by 1 / (1 + u), not 1 + u; transforms in the order
    rotation, shift, shear, zoom, not zoom, shear, rotation, shift; slants by the sine
    of an angle, not its tangent, and lengthens the stroke; does not round to whole grey
    levels; and repeats the border where we have 0, which shows only if there is ink on
    it, as in 813 of MNIST's 60,000 training images.

    Settings of one transform share the word before the underscore.
    """

    rotation: float = _bound(
        180, "degrees", "rotation ±{:g}°", "Rotate each image at random by up to ±this"
    )
    zoom: float = _bound(
        0.9, "as a share", "zoom 1 ± {:g}", "Zoom each axis at random by 1 ± up to this"
    )
    shift: float = _bound(
        1, "of the side", "shift ±{:g}", "Shift each image at random by up to ±this"
    )
    shear: float = _bound(
        80, "degrees", "shear ±{:g}°", "Slant each image at random by up to ±this"
    )
    elastic_alpha: float = _bound(
        1000, "pixels", "elastic α {:g}", "Strength of random elastic deformations"
    )
    elastic_sigma: float = _bound(
        28, "pixels", "σ {:g}", "Smoothness of random elastic deformations"
    )
    thickness: float = _bound(
        1,
        "pixels",
        "thickness ±{:g}",
        "Thicken or thin strokes at random by up to this",
    )
    contrast: float = _bound(
        1,
        "as a share",
        "ink − {:g}",
        "Make the ink of half of the images fainter by up to this",
    )
    brightness: float = _bound(
        1,
        "as a share",
        "paper + {:g}",
        "Make the paper of half of the images darker by up to this",
    )
    blur: float = _bound(
        5,
        "pixels",
        "blur {:g}",
        "Blur half of the images by a Gaussian of up to this deviation",
    )
    noise: float = _bound(
        1,
        "as a share",
        "noise {:g}",
        "Add noise to half of the images, of up to this deviation",
    )
    cutout: float = _bound(
        1,
        "of the side",
        "cut-out {:g}",
        "Erase a square of half of the images, of up to this side",
    )


_LIMITS = {f.name: f.metadata for f in dataclasses.fields(OnlineSettings)}


def settings_from(config: Any) -> OnlineSettings:
    """The online settings of a run, attributes of `config`; UserError if wrong."""
    values = {name: float(getattr(config, name)) for name in _LIMITS}
    for name, value in values.items():
        try:
            _LIMITS[name]["check"](value)
        except errors.UserError as error:
            raise errors.UserError(f"{name} {error}") from None
    check_elastic(config)
    return OnlineSettings(**values)


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
    on = [name for name in _LIMITS if values[name]]
    alone = []
    for _, group in itertools.groupby(on, lambda name: name.partition("_")[0]):
        names = list(group)
        label = ", ".join(_LIMITS[name]["label"].format(values[name]) for name in names)
        alone.append((label, OnlineSettings(**{name: values[name] for name in names})))
    return alone
