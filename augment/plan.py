# SPDX-License-Identifier: Apache-2.0
"""Plan of an enlarged training set: its settings and its parts.

`plan` lists the parts; `settings_from` checks the settings of a run.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import data
from augment.deform import KINDS, Deformation, deform
from augment.flip import CODES, flip
from augment.shift import DIRECTIONS, shift, shifts
from data.dataset import MAX_CLASSES
from system import errors

DIGITS = tuple(range(10))
# MNIST's digits leave a margin of four pixels, on average. Of the training images 76 %
# lose ink to a shift by four in some direction, 35 % by three, 12 % by two and 1.4 %
# by one.
MAX_PIXELS = 4
MAX_MULTIPLY = 100_000  # makes six billion digits of MNIST
MAX_SEED = 2**63 - 1
MAX_NAMED = 30  # classes that a message lists
COPY = "#"  # precedes the number of a deformed copy in the name of its part


@dataclasses.dataclass(frozen=True)
class Settings:
    """Transforms that make up an enlarged set; empty tuples for none of a kind.

    `augment.settings` has the flags of the same names, whose lists hold strings.
    """

    shift_directions: tuple[str, ...] = tuple(DIRECTIONS)
    shift_pixels: int = 1  # largest shift along each axis
    shift_diagonal: bool = False  # whether to shift along both axes at once as well
    flip_codes: tuple[int, ...] = (1,)  # 0 upside down, 1 left-right
    flip_labels: tuple[int, ...] = DIGITS  # digits to flip
    flip_shifted: bool = False  # whether to flip the shifted images as well
    keep_originals: bool = True  # whether the originals are part of the set
    deform: tuple[str, ...] = ()  # some of `KINDS`, instead of shifts and flips
    multiply: int = 1  # size of a deformed set, in times the originals
    deform_seed: int = 0


Transform = Callable[[np.ndarray], np.ndarray]  # uint8 [n, 28, 28, 1] → the same


@dataclasses.dataclass(frozen=True)
class Part:
    """One transform and the images it is applied to."""

    name: str  # such as "flip(1) of shift(+0,+1)"
    indices: np.ndarray  # int32 [n], ascending, of the originals
    apply: Transform  # a pure function
    # Whether applying it to a few images at a time gives the same result; a transform
    # that draws random numbers for all of them at once needs them all.
    piecewise: bool = False


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
    every = np.arange(len(labels), dtype=np.int32)  # shared by all copies
    kinds, seed = settings.deform, settings.deform_seed
    first = int(settings.keep_originals)  # originals count as copy 0
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


# Offline augmentations, in the order of the enlarged set. To add one: a function from
# labels and settings to parts, a line here, its setting in `Settings`, and its flag in
# augment/settings.py.
TRANSFORMS: tuple[Callable[[np.ndarray, Settings], list[Part]], ...] = (
    _originals,
    _shifts,
    _flips,
    _deformations,
)


def plan(labels: np.ndarray, settings: Settings) -> list[Part]:
    """Lists the parts of the enlarged set that have images; UserError if none has."""
    parts = [part for make in TRANSFORMS for part in make(labels, settings)]
    parts = [part for part in parts if len(part.indices)]
    if not parts:
        raise errors.UserError(
            "the enlarged set would be empty: give --keep_originals,"
            " --shift_directions, or --flip_codes and --flip_labels"
        )
    return parts


_SHIFTS = ("shift_directions", "shift_pixels", "shift_diagonal")
_FLIPS = ("flip_codes", "flip_labels", "flip_shifted")
_DEFORM = ("deform", "multiply", "deform_seed")


def checks(name: str) -> Callable[[Any], object]:
    """Returns a function that raises UserError at a wrong value of one setting."""
    return lambda value: settings_from(dataclasses.replace(Settings(), **{name: value}))


def settings_from(config: Any, classes: Sequence[str] | None = None) -> Settings:
    """Turns settings, attributes of `config`, into a plan's; UserError if wrong.

    `config` is a `config.Config`, absl's flags, or what was stored with a set. Lists
    are sorted and deduplicated, so that the same images get the same folder. `classes`
    are the names that `flip_labels` may have; with None, these are labels already.
    """
    pixels = config.shift_pixels
    if pixels not in range(1, MAX_PIXELS + 1):
        raise errors.UserError(f"shift_pixels must be 1 to {MAX_PIXELS}, got {pixels}")
    defaults = {k: v for k, v in vars(Settings()).items() if k not in _DEFORM}
    values = {k: getattr(config, k, default) for k, default in defaults.items()}
    lists = {"shift_directions": DIRECTIONS, "flip_codes": CODES}
    values |= {k: _choices(config, k, allowed) for k, allowed in lists.items()}
    values["flip_labels"] = _flip_labels(config, classes)
    settings = Settings(**values)
    # These are checked together, for they depend on each other.
    deformed = check_deform(config)
    return _replaced(settings, deformed) if deformed else settings


def _replaced(settings: Settings, deformed: Mapping[str, Any]) -> Settings:
    """Returns settings with deformations instead of shifts and flips.

    Raises UsageError if shifts or flips were asked for, other than the default ones.
    """
    default = Settings()
    asked: tuple[str, ...] = _SHIFTS if settings.shift_directions else ()
    asked += _FLIPS if settings.flip_codes and settings.flip_labels else ()
    for name in asked:
        if getattr(settings, name) != getattr(default, name):
            raise errors.UsageError(
                f"--deform replaces shifts and flips, but --{name} was given: leave it"
                " out, or add --shift_directions= --flip_codes="
            )
    values = {name: getattr(default, name) for name in (*_SHIFTS, *_FLIPS)}
    values |= {"shift_directions": (), "flip_codes": (), **deformed}
    return dataclasses.replace(settings, **values)


def check_deform(config: Any) -> dict[str, Any]:
    """Returns the settings of the deformations; an empty dict without any.

    A setting that is missing or None has its default. Raises UserError if one is out of
    range, or given without the others.
    """
    values: dict[str, Any] = {name: getattr(config, name, None) for name in _DEFORM}
    given = {name: value for name, value in values.items() if value is not None}
    settings = dataclasses.replace(Settings(), **given)
    kinds = _choices(settings, "deform", KINDS)
    multiply, seed = settings.multiply, settings.deform_seed
    if not 1 <= multiply <= MAX_MULTIPLY:
        raise errors.UserError(f"multiply must be 1 to {MAX_MULTIPLY}, got {multiply}")
    if not 0 <= seed <= MAX_SEED:
        raise errors.UserError(f"deform_seed must be 0 to {MAX_SEED}, got {seed}")
    if bool(kinds) != (multiply > 1) or (seed and not kinds):
        raise errors.UserError(
            "deform needs a multiply above 1, and multiply and deform_seed need deform;"
            f" got deform {', '.join(kinds) or 'empty'} and multiply {multiply}: give"
            " both, such as --deform=elastic,affine --multiply=135, or neither"
        )
    if not kinds:
        return {}
    return {"deform": kinds, "multiply": multiply, "deform_seed": seed}


def describe(settings: Settings) -> dict[str, Any]:
    """Everything but the originals that a set depends on.

    It goes into manifest.json of the set's folder, and its hash into the folder's name.
    A setting that was added after the first version is left out at its default, so that
    it changes no name of a set.
    """
    values, default = dataclasses.asdict(settings), dataclasses.asdict(Settings())
    named = (*_SHIFTS, *_FLIPS, "keep_originals", *(_DEFORM if settings.deform else ()))
    described = {k: v for k, v in values.items() if k in named or v != default[k]}
    if settings.deform:
        described["deformation"] = dataclasses.asdict(Deformation())
    return described


def _flip_labels(config: Any, classes: Sequence[str] | None) -> tuple[int, ...]:
    """Labels of the classes to flip; by default, of those that are named 0 to 9."""
    if classes is None:
        return _choices(config, "flip_labels", range(MAX_CLASSES))
    names = [str(name) for name in config.flip_labels]
    if set(names) == set(data.DIGITS):
        names = [name for name in names if name in classes]
    for name in names:
        if name not in classes:
            raise errors.UserError(
                f"flip_labels: {name!r} is no class of this dataset; expected some of"
                f" {', '.join(classes[:MAX_NAMED])}{', …' * (len(classes) > MAX_NAMED)}"
            )
    return tuple(label for label, name in enumerate(classes) if name in names)


def _choices(config: Any, name: str, allowed: Iterable) -> tuple:
    """Returns the items of `allowed` that are named, as themselves or as strings."""
    known = {str(item): item for item in allowed}
    named = [str(item) for item in getattr(config, name)]
    for item in named:
        if item not in known:
            raise errors.UserError(f"{name}: {item!r} is not one of {', '.join(known)}")
    return tuple(item for text, item in known.items() if text in named)
