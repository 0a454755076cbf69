# SPDX-License-Identifier: Apache-2.0
"""Settings as fields of frozen dataclasses, and a flag of the command line for each."""

import dataclasses
import functools
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from system import cli, errors

# Names of flags, and a function that raises UserError if their values, which are its
# argument's attributes, do not go together.
Check = tuple[Sequence[str], Callable[[Any], object]]


def setting(default: Any, text: str, **limits: Any) -> Any:
    """A field of a class of settings: its default, its text for --help, its limits.

    Limits are `choices`; `least` and `most`; `share=True` for [0, 1); `positive=True`;
    `check`, a function that raises UserError; `parser` with `parse`; `path=True`;
    `decides=False` if it cannot change the result of a run; `local=True` if the workers
    of one run may differ in it.
    """
    return dataclasses.field(default=default, metadata={"text": text, **limits})


def define_flags(
    *classes: type,
    checks: Sequence[Check] = (),
    values: flags.FlagValues = flags.FLAGS,
) -> None:
    """Defines a flag for each field of the classes, and checks between flags.

    They are added to `values`, by default the flags of the program.
    """
    for class_ in classes:
        for field in dataclasses.fields(class_):
            _define(field, values)
    for names, check in checks:
        cli.require_together(names, check, values)


def values_of_flags(values: flags.FlagValues, *classes: type) -> dict[str, Any]:
    """Values of the flags that `define_flags` defined, by name."""
    names = [field.name for class_ in classes for field in dataclasses.fields(class_)]
    return {name: values[name].value for name in names}


def arguments(given: Any, values: flags.FlagValues) -> dict[str, str]:
    """Settings as arguments such as --epochs=2, or "" for None, by name.

    `given` is a dataclass of settings; `values` has a flag for each.
    """
    return {name: _argument(values[name], v) for name, v in vars(given).items()}


def _argument(flag: flags.Flag, value: Any) -> str:
    if isinstance(value, (str, os.PathLike)):
        return f"--{flag.name}={value}"
    flag.value = value
    try:
        return flag.serialize()
    except TypeError:  # a number where the flag takes a list
        return f"--{flag.name}={value}"


def parse(words: Iterable[str], values: flags.FlagValues) -> None:
    """Parses arguments as a command line, with all limits and checks.

    Raises:
      errors.UsageError: an argument is refused.
    """
    try:
        values(["", *words])
    except (flags.Error, ValueError) as error:
        raise errors.UsageError(" ".join(str(error).splitlines())) from None


def read(kind: type, entries: Mapping[str, Any]) -> Any:
    """Settings that were stored as JSON; those that are missing have their defaults.

    Raises:
      errors.UserError: an entry is unknown, of the wrong type, or beyond its limits.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name, value in entries.items():
        if name not in fields:
            raise errors.UserError(f"there is no setting {name!r} in this version")
        _check(fields[name], value)
    return kind(**entries)


# Limits within which float32 does not round to 1, 0 or infinity.
_RANGES = {
    "share": (0, 0.9999999, "expected a number in [0, 1), up to 0.9999999"),
    "positive": (1e-37, 1e38, "expected a number above 0, 1e-37 to 1e+38"),
}


def _is_within(low: float, high: float, value: float | None) -> bool:
    return value is None or low <= value <= high


def _check(field: dataclasses.Field, value: Any) -> None:
    limits, unlimited = field.metadata, value is None
    if not _is_of(value, field.type):
        raise errors.UserError(f"{field.name!r} is of the wrong type")
    valid = (
        unlimited
        or value in limits.get("choices", [value])
        and limits.get("least", value) <= value <= limits.get("most", value)
        and all(
            _is_within(*_RANGES[limit][:2], value)
            for limit in _RANGES.keys() & limits.keys()
        )
    )
    if not valid:
        raise errors.UserError(f"{field.name!r} has an impossible value")
    if "check" in limits and not unlimited:
        try:
            limits["check"](value)
        except errors.UserError as error:
            raise errors.UserError(f"{field.name!r}: {error}") from None


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value from JSON has a field's type, such as `list[str] | None`."""
    if isinstance(kind, types.UnionType):
        return any(_is_of(value, one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        (item,) = typing.get_args(kind)
        return isinstance(value, list) and all(_is_of(v, item) for v in value)
    return type(value) in ((int, float) if kind is float else (kind,))


def headings(*classes: type) -> cli.Groups:
    """The docstring of each class, and the flags below it in --help."""
    return {
        class_.__doc__ or "": [field.name for field in dataclasses.fields(class_)]
        for class_ in classes
    }


def _define(field: dataclasses.Field, values: flags.FlagValues) -> None:
    name, limits = field.name, field.metadata
    own: Any = {"flag_values": values}
    default: Any = field.default
    text, least, most = limits["text"], limits.get("least"), limits.get("most")
    # Of `float | None`, the first; list[str] is a list.
    kind = next(iter(typing.get_args(field.type)), field.type)
    if "choices" in limits:
        flags.DEFINE_enum(name, default, list(limits["choices"]), text, **own)
    elif "parser" in limits:
        serializer = flags.CsvListSerializer(",")
        flags.DEFINE(
            limits["parser"], name, default, text, serializer=serializer, **own
        )
    elif limits.get("path"):
        cli.define_path(name, default, text, **own)
    elif kind is bool:
        flags.DEFINE_bool(name, default, text, **own)
    elif kind is int:
        flags.DEFINE_integer(name, default, text, least, most, **own)
    elif kind is float:
        flags.DEFINE_float(name, default, text, **own)
    else:  # list[str]
        flags.DEFINE_list(name, default and list(default), text, **own)
    for limit, (low, high, expected) in _RANGES.items():
        if limits.get(limit):
            check = functools.partial(_is_within, low, high)
            flags.register_validator(name, check, expected, **own)
    if "check" in limits:
        flags.register_validator(name, cli.validator(limits["check"]), **own)
