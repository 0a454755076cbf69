# SPDX-License-Identifier: Apache-2.0
"""The settings that a search varies, and the values that they may take.

A space is a file next to a flagfile and looks like one, with a line per setting:

    # Rates in proportion, a number or a whole number in between, or some values.
    --learning_rate=log 1e-3..1e-2
    --rotation=5..20
    --batch_size=64,128,256
    --hidden_units=64 | 150,100

Values are separated by | where they have commas themselves.
"""

import dataclasses
import itertools
import math
import re
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from system import errors, untrusted

MAX_BYTES = 1 << 16
MAX_VALUES = 100  # of a setting

_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(?:(log)\s+)?({_NUMBER})\s*\.\.\s*({_NUMBER})", re.ASCII)
_LINE = re.compile(r"--(\w+)\s*=\s*(.+)", re.ASCII)
_EXAMPLES = "--rotation=5..20, --learning_rate=log 1e-3..1e-2 or --batch_size=64,128"

# What a search needs to be the same for all trials.
FIXED = {
    "dataset": "values on different digits cannot be compared",
    "epochs": "trials are compared epoch by epoch",
    "seed": "give --seeds instead",
    "split_seed": "values on different digits cannot be compared",
    "validation_size": "values on different digits cannot be compared",
}


class SpaceError(errors.UserError):
    """A space that cannot be searched."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A setting and its values: those from low to high, or a few choices.

    Attributes:
      name: of the setting.
      line: number of its line in the file.
      text: the line.
      choices: values, as on a command line; none for a range.
      low, high: ends of the range, both included.
      log: whether the logarithm is uniform.
      whole: whether values are whole numbers.
    """

    name: str
    line: int
    text: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    whole: bool = False

    def value(self, drawn: Any) -> str:
        """A drawn value as on a command line, without digits that mean nothing."""
        if self.choices or self.whole:
            return str(drawn)
        if self.log:
            rounded = float(f"{drawn:.4g}")
        else:
            rounded = round(drawn, 3 - math.floor(math.log10(self.high - self.low)))
        return f"{min(max(rounded, self.low), self.high):.12g}"

    def ends(self) -> Sequence[str]:
        """Values that have to be allowed for all to be."""
        return self.choices or (self.value(self.low), self.value(self.high))


def read(path: Path, kind: type) -> list[Parameter]:
    """Reads a space; `kind` is the dataclass of all settings, `config.Config`.

    Raises:
      SpaceError: the file cannot be read, or has a line that is not as above.
    """
    try:
        text = untrusted.read(path, MAX_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(
            f"{path}: the space cannot be read ({errors.reason(error)}): expected a"
            f" text file with a line per setting, such as {_EXAMPLES}"
        ) from None
    fields = {field.name: field for field in dataclasses.fields(kind)}
    found: dict[str, Parameter] = {}
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = line.strip()
        if not line or line.startswith(("#", "//")):
            continue
        try:
            parameter = _parse(line, number, fields)
            if other := found.get(parameter.name):
                raise ValueError(f"--{other.name} is in line {other.line}, too")
        except ValueError as error:
            raise SpaceError(f"{path}, line {number}: {error}") from None
        found[parameter.name] = parameter
    if not found:
        raise SpaceError(f"{path}: no setting to search: expected lines as {_EXAMPLES}")
    return list(found.values())


def _parse(line: str, number: int, fields: dict[str, dataclasses.Field]) -> Parameter:
    """Raises ValueError, with what was expected, for a line that is not as above."""
    match = _LINE.fullmatch(line)
    if not match:
        raise ValueError(f"{line[:80]!r}: expected a line such as {_EXAMPLES}")
    name, text = match[1], match[2]
    if name not in fields:
        raise ValueError(
            f"--{name[:50]}: no setting has this name; train.py --help lists all"
        )
    if name in FIXED:
        raise ValueError(f"--{name} has to be the same in all trials: {FIXED[name]}")
    if not fields[name].metadata.get("decides", True):
        raise ValueError(f"--{name} does not change the result: leave it out")
    # Of `float | None`, the first.
    kind = next(iter(typing.get_args(fields[name].type)), fields[name].type)
    if ".." in text or text.startswith("log "):
        return _parse_range(Parameter(name, number, line), text, kind)
    values = tuple(value.strip() for value in text.split("|" if "|" in text else ","))
    if not 2 <= len(set(values)) == len(values) <= MAX_VALUES:
        raise ValueError(
            f"{line[:80]!r}: expected a range, or 2 to {MAX_VALUES} different values"
            " with commas between them, or | if they have commas themselves"
        )
    return Parameter(name, number, line, choices=values)


def _parse_range(parameter: Parameter, text: str, kind: Any) -> Parameter:
    match = _RANGE.fullmatch(text)
    if kind not in (int, float):
        raise ValueError(
            f"--{parameter.name} is no number: expected values, not a range"
        )
    if not match:
        raise ValueError(f"{text[:80]!r}: expected LOW..HIGH or log LOW..HIGH")
    log, low, high = bool(match[1]), float(match[2]), float(match[3])
    whole = kind is int
    if not (low < high and math.isfinite(high - low)) or log and low <= 0:
        raise ValueError(f"{text!r}: expected the lower end first" + ", above 0" * log)
    if whole and not (low.is_integer() and high.is_integer()):
        raise ValueError(f"{text!r}: expected whole numbers for --{parameter.name}")
    low, high = (int(low), int(high)) if whole else (low, high)
    return dataclasses.replace(parameter, low=low, high=high, log=log, whole=whole)


def check(
    path: Path, space: Sequence[Parameter], accept: Callable[[list[str]], object]
) -> None:
    """Raises SpaceError if a value of the space is none that train.py takes.

    Limits of one setting and checks between two are found: we try all pairs of ends.
    `accept` raises UserError for arguments that are refused.
    """
    for varied in _corners(space):
        values = {p.name: p.ends()[0] for p in space} | varied
        try:
            accept([f"--{name}={value}" for name, value in values.items()])
        except errors.UserError as error:
            to_blame = [p for p in space if re.search(rf"\b{p.name}\b", str(error))]
            to_blame = to_blame or [p for p in space if p.name in varied]
            lines = " and ".join(str(p.line) for p in to_blame)
            where = f"{path}, line {lines}" if lines else str(path)
            raise SpaceError(f"{where}: {error}") from None


def _corners(space: Sequence[Parameter]) -> Iterator[dict[str, str]]:
    yield {}
    for parameter in space:
        yield from ({parameter.name: end} for end in parameter.ends()[1:])
    for one, other in itertools.combinations(space, 2):
        for ends in itertools.product(one.ends()[1:], other.ends()[1:]):
            yield dict(zip((one.name, other.name), ends, strict=True))
