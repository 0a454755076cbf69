# SPDX-License-Identifier: Apache-2.0
"""--flagfile, read without trusting the file, and --unset.

absl can read flagfiles itself, but it waits for ever at a pipe, reads /dev/zero until
memory is full, silently ignores a file that includes itself, and takes hours over
thirty files that each include the next one twice.
"""

import os
import re
import shlex
from collections.abc import Iterator, Sequence

from absl import flags

from system import untrusted

RUN_FLAGS = "flags.txt"  # flagfile in a run directory
MAX_FILES = 100  # per command line; a file that is included twice counts twice
MAX_FILE_BYTES = 1 << 20
MAX_LINE_CHARACTERS = 4096  # as long as a path may be
# absl compares an unknown name with all flags, by recursion over its letters.
MAX_NAME_CHARACTERS = 50

# Text that a shell would change, so a flagfile must quote it.
_SHELL = re.compile(r"\s(#|//|--)|\\$|^[\s“”‘’«»„]|\$[\w{(]")

_DIRECTIVE = re.compile(r"--?flagfile(?:=(.*))?", re.DOTALL)


def expand(arguments: Sequence[str]) -> list[str]:
    """Replaces each --flagfile argument by the lines of its file.

    A line is an argument, a comment (# or //), or blank. A value may be quoted as for a
    shell, and must be if a shell would change it. Relative paths start at the current
    folder. Arguments after -- are left alone.

    For the flags.txt of a run directory, we add --run_dir=FOLDER as its last argument:
    the directory may have been moved since the file was written.

    Raises flags.Error if a flagfile cannot be read, is not text, or includes itself, or
    if a flag's name is too long.
    """
    return list(_expand(list(arguments), (), [0]))


def unset(arguments: Sequence[str], known: flags.FlagValues) -> list[str]:
    """Removes each --unset=NAME,… and all arguments before it that set those flags.

    So we can drop a flag that a flagfile sets, whatever values it takes. Call it after
    `expand`. Raises flags.Error if no flag of the program has that name.
    """
    kept: list[tuple[str, list[str]]] = []  # name of a flag, its words
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
                raise flags.Error(
                    f"--unset={other[:MAX_NAME_CHARACTERS]}: no flag has this name"
                )
        kept = [(name, words) for name, words in kept if name not in names]
    return [word for _, words in kept for word in words]


def line(argument: str) -> str:
    """Line of a flagfile for an argument --name=value, quoted if necessary."""
    try:
        if argument.strip() == argument and _argument(argument) == argument:
            return argument
    except ValueError:
        pass
    name, _, value = argument.partition("=")
    return f"{name}={shlex.quote(value)}"


def _argument(text: str) -> str:
    """Argument in a line of a flagfile.

    Raises ValueError if it holds more than one, or text that only a shell understands.
    """
    quotes = ("'", '"')
    name, equals, value = text.partition("=")
    quoted = text if text[:1] in quotes else value
    if quoted[:1] in quotes:
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
    """Yields arguments; `inside`: the files around them, `opened`: count of all."""
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            yield argument
            yield from rest
        elif match := _DIRECTIVE.fullmatch(argument):
            name = next(rest, None) if match[1] is None else match[1].strip()
            if name is None:
                raise flags.Error("--flagfile has no value: expected --flagfile=FILE")
            if name:
                yield from _expand_file(name, inside, opened)
        elif (
            argument[:1] == "-"
            and len(argument.partition("=")[0]) > MAX_NAME_CHARACTERS
        ):
            raise flags.Error(f"unknown flag {argument[:40]}…: --help lists all flags")
        else:
            yield argument


def _expand_file(
    name: str, inside: tuple[str, ...], opened: list[int]
) -> Iterator[str]:
    opened[0] += 1
    if opened[0] > MAX_FILES:
        raise flags.Error(f"more than {MAX_FILES} flagfiles: use fewer")
    if "\0" in name:
        raise flags.Error(f"--flagfile={name!r}: no file can have this name")
    path = os.path.expanduser(name)
    real = os.path.realpath(path)
    if real in inside:
        raise flags.Error(
            f"{path}: the flagfile includes itself; remove that --flagfile line"
        )
    yield from _expand(_lines(path), (*inside, real), opened)
    for location in (path, real):
        folder, file = os.path.split(location)
        others = (os.path.join(folder, name) for name in ("run.json", "checkpoints"))
        if file == RUN_FLAGS and any(map(os.path.exists, others)):
            yield _run_dir(folder)
            break


def _run_dir(folder: str) -> str:
    """--run_dir for a folder, with its braces and a leading ~ taken literally."""
    folder = folder or "."
    folder = os.path.join(".", folder) if folder.startswith("~") else folder
    return "--run_dir=" + folder.replace("{", "{{").replace("}", "}}")


def _lines(path: str) -> list[str]:
    """Arguments in a flagfile."""
    try:
        text = untrusted.read(path, MAX_FILE_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise flags.Error(
            f"{path}: the flagfile cannot be read ({error.strerror}); check the path"
        ) from None
    except UnicodeDecodeError:
        raise flags.Error(
            f"{path}: not a flagfile: it is not UTF-8 text; check the path"
        ) from None
    arguments = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = line.strip()
        if len(line) > MAX_LINE_CHARACTERS or "\0" in line:
            raise flags.Error(
                f"{path}: not a flagfile: line {number} has a NUL or more than"
                f" {MAX_LINE_CHARACTERS} characters; check the path"
            )
        if line and not line.startswith(("#", "//")):
            try:
                arguments.append(_argument(line))
            except ValueError as error:
                raise flags.Error(
                    f"{path}: line {number} has {error}; expected one --name=value,"
                    " quoted as for a shell if necessary; comments need their own line"
                ) from None
    return arguments
