# SPDX-License-Identifier: Apache-2.0
"""--flagfile=…, read with no trust in the file.

absl reads flagfiles too, but waits for ever at a pipe, reads /dev/zero until the memory
is full, falls silent at one that names itself, and follows a few that each name the
next one twice for hours.
"""

import os
import re
import shlex
from collections.abc import Iterator, Sequence

from absl import flags

from system import untrusted

OF_RUN = "flags.txt"  # beside the run.json of a run
MOST_BYTES = 1 << 20
MOST_FILES = 100  # read for one command line, counting each time
QUOTES = ("'", '"')
MOST_LINE = 4096  # characters, as many as a path may have
# Of a flag's name. absl compares an unknown one with all that it knows, by recursion
# over its letters.
MOST_NAME = 50

# What a shell would not hand over as it is, and a flagfile is not to, unquoted.
_SHELL = re.compile(r"\s(#|//|--)|\\$|^[\s“”‘’«»„]|\$[\w{(]")

_DIRECTIVE = re.compile(r"--?flagfile(?:=(.*))?", re.DOTALL)


def expand(arguments: Sequence[str]) -> list[str]:
    """Puts the lines of each flagfile in the place of the argument that names it.

    A line is an argument, a comment (# or //), or blank. A value may stand in quotes,
    as for a shell, and must if it holds what a shell would take for more. Paths count
    from the current folder. Behind -- nothing is looked at.

    The flags.txt in a run directory also names that directory, as its last argument:
    --run_dir=FOLDER, wherever the run was begun and whatever --run_dir is in the file.

    Args:
      arguments: of a command line, without the program's name.

    Raises:
      flags.Error: a flagfile cannot be read, is no text, or leads to itself; no flag
        has a name so long.
    """
    return list(_expand(list(arguments), (), [0]))


def unset(arguments: Sequence[str], known: flags.FlagValues) -> list[str]:
    """Takes out each --unset=NAME,… and all before it that gives those flags a value.

    So a flag that a flagfile sets can be left out again, whatever values it takes.

    Args:
      arguments: without flagfiles.
      known: the flags of the program.

    Raises:
      flags.Error: no flag has such a name.
    """
    kept: list[tuple[str, list[str]]] = []  # the name of a flag, and its words
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*(w for _, words in kept for w in words), argument, *rest]
        name, equals, value = argument.lstrip("-").partition("=")
        words = [argument]
        if argument[:1] != "-":
            name = ""
        elif name not in known:
            name = name.removeprefix("no") if name != "unset" else name
        if not equals and name and not (name in known and known[name].boolean):
            words += [word for word in [next(rest, None)] if word is not None]
            value = words[-1]
        if name != "unset":
            kept.append((name, words))
            continue
        names = value.split(",")
        for other in names:
            if other not in known:
                raise flags.Error(f"--unset={other[:MOST_NAME]}: no flag has this name")
        kept = [(name, words) for name, words in kept if name not in names]
    return [word for _, words in kept for word in words]


def line(argument: str) -> str:
    """The line of a flagfile that stands for an argument, --name=value."""
    try:
        if argument.strip() == argument and _argument(argument) == argument:
            return argument
    except ValueError:
        pass
    name, _, value = argument.partition("=")
    return f"{name}={shlex.quote(value)}"


def _argument(text: str) -> str:
    """The argument that a line stands for.

    Raises:
      ValueError: it holds more than one, or what only a shell understands.
    """
    name, equals, value = text.partition("=")
    quoted = text if text[:1] in QUOTES else value
    if quoted[:1] in QUOTES:
        words = shlex.split(quoted, comments=True)
        if len(words) != 1:
            raise ValueError("more than one value")
        return words[0] if quoted is text else f"{name}={words[0]}"
    if found := _SHELL.search(value if equals else text):
        raise ValueError(f"{found[0].strip() or 'a blank'} without quotes")
    return text


def _expand(
    arguments: list[str], inside: tuple[str, ...], opened: list[int]
) -> Iterator[str]:
    """Yields the arguments; `inside` these files, with one count of files for all."""
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            yield argument
            yield from rest
        elif match := _DIRECTIVE.fullmatch(argument):
            name = next(rest, None) if match[1] is None else match[1].strip()
            if name is None:
                raise flags.Error("--flagfile names no file: expected --flagfile=FILE")
            if name:
                yield from _expand_file(name, inside, opened)
        elif argument[:1] == "-" and len(argument.partition("=")[0]) > MOST_NAME:
            raise flags.Error(f"unknown flag {argument[:40]}…: see --help for all")
        else:
            yield argument


def _expand_file(
    name: str, inside: tuple[str, ...], opened: list[int]
) -> Iterator[str]:
    opened[0] += 1
    if opened[0] > MOST_FILES:
        raise flags.Error(f"more than {MOST_FILES} flagfiles: leave some out")
    if "\0" in name:
        raise flags.Error(f"{name!r}: no name that a file can have; mend the flagfile")
    path = os.path.expanduser(name)
    real = os.path.realpath(path)
    if real in inside:
        raise flags.Error(
            f"{path}: a flagfile that leads to itself; take --flagfile out of it"
        )
    yield from _expand(_lines(path), (*inside, real), opened)
    for place in (path, real):
        folder, file = os.path.split(place)
        beside = (os.path.join(folder, name) for name in ("run.json", "checkpoints"))
        if file == OF_RUN and any(map(os.path.exists, beside)):
            yield _run_dir(folder)
            break


def _run_dir(folder: str) -> str:
    """The flag that names a run directory, in which nothing is to be replaced."""
    folder = folder or "."
    folder = os.path.join(".", folder) if folder.startswith("~") else folder
    return "--run_dir=" + folder.replace("{", "{{").replace("}", "}}")


def _lines(path: str) -> list[str]:
    """The arguments that stand in a flagfile."""
    try:
        text = untrusted.read(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise flags.Error(
            f"{path}: the flagfile cannot be read ({error.strerror}); check the path"
        ) from None
    except UnicodeDecodeError:
        raise flags.Error(
            f"{path}: not a flagfile, for it is no UTF-8 text; check the path"
        ) from None
    found = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = line.strip()
        if len(line) > MOST_LINE or "\0" in line:
            raise flags.Error(
                f"{path}: not a flagfile, for line {number} has a NUL or more than"
                f" {MOST_LINE} characters; check the path"
            )
        if line and not line.startswith(("#", "//")):
            try:
                found.append(_argument(line))
            except ValueError as error:
                raise flags.Error(
                    f"{path}: line {number} has {error}; expected one --name=value,"
                    " quoted as for a shell if need be, and a comment in a line of its"
                    " own"
                ) from None
    return found
