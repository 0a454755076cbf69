# SPDX-License-Identifier: Apache-2.0
"""What an enlarged training set consists of: its settings, their flags, its parts."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from absl import flags

from augment.deform import KINDS, Deformation, deform
from augment.flip import CODES, flip
from augment.shift import DIRECTIONS, shift, shifts
from system import cli, errors

DIGITS = tuple(range(10))
# MNIST's digits leave four pixels on each side on average. Of the training images 76 %
# lose ink to a shift by four in some direction, 35 % by three, 12 % by two and 1.4 %
# by one.
MAX_PIXELS = 4
MAX_MULTIPLY = 100_000  # six billion digits of MNIST
MAX_SEED = 2**63 - 1
COPY = "#"  # in the name of a part: before the number of a deformed copy


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which images the enlarged set consists of.

    Attributes:
      shift_directions: some of up, down, left, right; none for no shifts.
      shift_pixels: largest shift along each axis.
      shift_diagonal: whether to shift along both axes at once as well.
      flip_codes: some of 0 (upside down) and 1 (left-right); none for no flips.
      flip_labels: the digits that are flipped; none for no flips.
      flip_shifted: whether to flip the shifted images as well as the originals.
      keep_originals: whether the originals belong to the set.
      deform: some of elastic and affine, in the place of all shifts and flips; none
        for no deformations.
      multiply: how many times as large the set is as the source, if it is deformed:
        the originals, if they are kept, and copies that are each deformed anew.
      deform_seed: of the deformations.
    """

    shift_directions: tuple[str, ...] = tuple(DIRECTIONS)
    shift_pixels: int = 1
    shift_diagonal: bool = False
    flip_codes: tuple[int, ...] = (1,)
    flip_labels: tuple[int, ...] = DIGITS
    flip_shifted: bool = False
    keep_originals: bool = True
    deform: tuple[str, ...] = ()
    multiply: int = 1
    deform_seed: int = 0


_DEFORM = ("deform", "multiply", "deform_seed")

Transform = Callable[[np.ndarray], np.ndarray]  # uint8 [n, 28, 28, 1] → the same


@dataclasses.dataclass(frozen=True)
class Part:
    """One transform and the images it is applied to.

    Attributes:
      name: of the transform, such as "flip(1) of shift(+0,+1)".
      indices: int32 [n], of the source images, ascending.
      apply: the transform, a pure function.
      piecewise: whether it may be applied to a few images at a time, as one that draws
        random numbers for all of them may not.
    """

    name: str
    indices: np.ndarray
    apply: Transform
    piecewise: bool = False


def define_flags() -> None:
    """Defines a flag for each of the settings, and --augmented_dir."""
    default = Settings()
    flags.DEFINE_list(
        "shift_directions",
        list(default.shift_directions),
        f"Offline shifts: some of {', '.join(DIRECTIONS)}; empty for none.",
    )
    flags.DEFINE_integer(
        "shift_pixels",
        default.shift_pixels,
        f"Largest offline shift along each axis, 1 to {MAX_PIXELS} pixels.",
    )
    flags.DEFINE_bool(
        "shift_diagonal", default.shift_diagonal, "Shift along both axes at once too."
    )
    flags.DEFINE_list(
        "flip_codes",
        [str(code) for code in default.flip_codes],
        "Offline flips: 0 for upside down, 1 for left-right; empty for none.",
    )
    flags.DEFINE_list(
        "flip_labels",
        [str(digit) for digit in default.flip_labels],
        "The digits that are flipped; empty for none.",
    )
    flags.DEFINE_bool(
        "flip_shifted", default.flip_shifted, "Flip the shifted images too."
    )
    flags.DEFINE_bool(
        "keep_originals", default.keep_originals, "Keep the originals in the set."
    )
    # None, for what is not given: a run that was begun before there were deformations
    # has the same settings as one that does without them.
    flags.DEFINE_list(
        "deform",
        None,
        f"Offline deformations, in place of shifts and flips: some of"
        f" {', '.join(KINDS)}.",
    )
    flags.DEFINE_integer(
        "multiply",
        None,
        "How many times as large --deform makes the set: the originals, and copies"
        f" deformed at random, 2 to {MAX_MULTIPLY:,}.",
    )
    flags.DEFINE_integer("deform_seed", None, "Of --deform; another makes another set.")
    cli.define_path(
        "augmented_dir", "augmented", "Where enlarged training sets are kept."
    )
    for name in dataclasses.asdict(default):
        if name not in _DEFORM:
            check = functools.partial(_check_alone, name)
            flags.register_validator(name, cli.validator(check))
    flags.register_multi_flags_validator(list(_DEFORM), cli.validator(_deform_from))


def _check_alone(name: str, value: Any) -> None:
    """Raises errors.UserError unless `settings_from` takes a value of this setting."""
    settings_from({**dataclasses.asdict(Settings()), name: value})


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Turns the values of the flags, or the same stored as JSON, into settings.

    The lists are sets: repetition and order mean nothing, so that they cannot lead
    to a second folder of the same images.

    Raises:
      errors.UserError: on a value that no setting can have.
    """
    pixels = values["shift_pixels"]
    if pixels not in range(1, MAX_PIXELS + 1):
        raise errors.UserError(f"shift_pixels must be 1 to {MAX_PIXELS}, got {pixels}")
    settings = Settings(
        shift_directions=_choices("shift_directions", values, DIRECTIONS),
        shift_pixels=pixels,
        shift_diagonal=values["shift_diagonal"],
        flip_codes=_choices("flip_codes", values, CODES),
        flip_labels=_choices("flip_labels", values, DIGITS),
        flip_shifted=values["flip_shifted"],
        keep_originals=values["keep_originals"],
    )
    deformed = _deform_from(values)
    return _replaced(settings, deformed) if deformed else settings


def _replaced(settings: Settings, deformed: Mapping[str, Any]) -> Settings:
    """Settings with deformations in the place of shifts and flips.

    Raises:
      errors.UsageError: other shifts or flips than the default ones were asked for.
    """
    default = Settings()
    names = ["shift_directions", "shift_pixels", "shift_diagonal"]
    names = names if settings.shift_directions else []
    if settings.flip_codes and settings.flip_labels:
        names += ["flip_codes", "flip_labels", "flip_shifted"]
    for name in names:
        if getattr(settings, name) != getattr(default, name):
            raise errors.UsageError(
                f"--deform takes the place of shifts and flips, and --{name} was given:"
                " leave it out, or add --shift_directions= --flip_codes="
            )
    return Settings(
        shift_directions=(),
        flip_codes=(),
        keep_originals=settings.keep_originals,
        **deformed,
    )


def _deform_from(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those settings that are about deformations; none if there are none.

    None, or no value at all, is the default.

    Raises:
      errors.UserError: on a value that no setting can have, or one without the other.
    """
    given = {name: values[name] for name in _DEFORM if values.get(name) is not None}
    values = {**dataclasses.asdict(Settings()), **given}
    kinds = _choices("deform", values, KINDS)
    multiply, seed = values["multiply"], values["deform_seed"]
    if not 1 <= multiply <= MAX_MULTIPLY:
        raise errors.UserError(f"multiply must be 1 to {MAX_MULTIPLY}, got {multiply}")
    if not 0 <= seed <= MAX_SEED:
        raise errors.UserError(f"deform_seed must be 0 to {MAX_SEED}, got {seed}")
    if bool(kinds) != (multiply > 1) or (seed and not kinds):
        raise errors.UserError(
            "deform and a multiply above 1 go together, and deform_seed only with"
            f" them; got {', '.join(kinds) or 'none'} and {multiply}: give both, such"
            " as --deform=elastic,affine --multiply=135, or none of them"
        )
    if not kinds:
        return {}
    return {"deform": kinds, "multiply": multiply, "deform_seed": seed}


def describe(settings: Settings) -> dict[str, Any]:
    """All that the images of a set depend on beside the source, for its manifest.

    Of deformations only if there are some: sets without them have kept their names.
    """
    values = dataclasses.asdict(settings)
    if settings.deform:
        return {**values, "deformation": dataclasses.asdict(Deformation())}
    return {name: value for name, value in values.items() if name not in _DEFORM}


def _choices(name: str, values: Mapping[str, Any], allowed: Iterable) -> tuple:
    """Returns those of `allowed` that are named, as themselves or as strings."""
    known = {str(item): item for item in allowed}
    named = [str(item) for item in values[name]]
    for item in named:
        if item not in known:
            raise errors.UserError(f"{name}: {item!r} is not one of {', '.join(known)}")
    return tuple(item for text, item in known.items() if text in named)


def _originals(labels: np.ndarray, settings: Settings) -> list[Part]:
    every = np.arange(len(labels), dtype=np.int32)
    return [Part("original", every, np.copy, True)] if settings.keep_originals else []


def _shifts(labels: np.ndarray, settings: Settings) -> list[Part]:
    every = np.arange(len(labels), dtype=np.int32)
    moves = shifts(
        settings.shift_directions, settings.shift_pixels, settings.shift_diagonal
    )
    return [
        Part(f"shift({y:+d},{x:+d})", every, functools.partial(shift, dy=y, dx=x), True)
        for y, x in moves
    ]


def _flips(labels: np.ndarray, settings: Settings) -> list[Part]:
    chosen = np.flatnonzero(np.isin(labels, settings.flip_labels)).astype(np.int32)
    shifted = _shifts(labels, settings) if settings.flip_shifted else []
    parts = []
    for code in settings.flip_codes:
        mirror = functools.partial(flip, code=code)
        parts.append(Part(f"flip({code})", chosen, mirror, True))
        for part in shifted:
            name = f"flip({code}) of {part.name}"
            parts.append(Part(name, chosen, _then(part.apply, mirror), True))
    return parts


def _deformations(labels: np.ndarray, settings: Settings) -> list[Part]:
    every = np.arange(len(labels), dtype=np.int32)  # one for all
    kinds, seed = settings.deform, settings.deform_seed
    first = int(settings.keep_originals)
    return [
        Part(
            f"{'+'.join(kinds)} {COPY}{copy}",
            every,
            functools.partial(deform, kinds=kinds, seed=seed, copy=copy),
        )
        for copy in range(first, settings.multiply if kinds else 0)
    ]


def _then(first: Transform, second: Transform) -> Transform:
    return lambda images: second(first(images))


# The offline augmentations, in the order of the enlarged set. To add one: a function
# from labels and settings to parts, its line here, its settings and their flags.
TRANSFORMS: tuple[Callable[[np.ndarray, Settings], list[Part]], ...] = (
    _originals,
    _shifts,
    _flips,
    _deformations,
)


def plan(labels: np.ndarray, settings: Settings) -> list[Part]:
    """Lists the parts of the enlarged set, leaving out those without an image.

    Args:
      labels: uint8 [N], of the source images.
      settings: which transforms to apply.

    Raises:
      errors.UserError: if not one image would be left.
    """
    parts = [part for make in TRANSFORMS for part in make(labels, settings)]
    parts = [part for part in parts if len(part.indices)]
    if not parts:
        raise errors.UserError(
            "the enlarged set would be empty: set --keep_originals, or choose "
            "--shift_directions, or --flip_codes and --flip_labels"
        )
    return parts
