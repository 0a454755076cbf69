# SPDX-License-Identifier: Apache-2.0
"""What the programs share: one-line errors, exit codes, help with flags."""

import functools
import inspect
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from system import console, errors, flagfiles

flags.disclaim_key_flags()  # a path is a flag of the module that calls define_path

VERSION = "0.5.1"

# Headings of --help and the names of flags below each.
Groups = Mapping[str, Sequence[str]]

_FOREIGN = ("absl.", "tensorflow.", "tensorboard.")  # modules with flags of their own
_HELP = {"--help", "-help", "--helpshort", "-h", "-?"}


def options(
    function: Callable, names: Iterable[str], values: Mapping[str, Any], what: str
) -> dict[str, Any]:
    """Arguments for a function out of the flags that are named like its parameters.

    Args:
      function: its keyword-only parameters that are among `names` have defaults.
      names: of the flags that are options of some function of its kind.
      values: of flags, by name; None, or none at all, stands for the default.
      what: the function's name to a user, such as "--network=mlp".

    Returns:
      The value of each of its options.

    Raises:
      errors.UsageError: an option is given that the function does not have.
    """
    parameters = inspect.signature(function).parameters
    own = sorted(set(names) & set(parameters))
    given = {name: values[name] for name in names if values.get(name) is not None}
    if foreign := sorted(given.keys() - set(own)):
        has_no, takes = (
            ", ".join(f"--{name}" for name in names) for names in (foreign, own)
        )
        raise errors.UsageError(
            f"{what} has no {has_no}; it takes {takes or 'none'}; to leave out what a"
            f" flagfile gives, add --unset={','.join(foreign)} behind it"
        )
    values = {name: given.get(name, parameters[name].default) for name in own}
    # As they come back from a file, where tuples are lists.
    return json.loads(json.dumps(values))


class _PathParser(flags.ArgumentParser[str]):
    """Puts the home directory in place of a leading ~, as a shell does.

    No shell sees the lines of a flagfile, nor the ~ in --run_dir=~/x.
    """

    def parse(self, argument: str) -> str:
        return os.path.expanduser(argument)


class _TextPathParser(_PathParser):
    """Refuses names that no line can hold: flags.txt and tables have paths."""

    def parse(self, argument: str) -> str:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ValueError("not UTF-8: expected a path that is; rename it") from None
        if re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029]", argument):
            raise ValueError("has control characters: expected none; rename it")
        return super().parse(argument)


def define_path(name: str, default: str | None, text: str, **options: Any) -> None:
    """Defines a flag that is a path; ~ is expanded, wherever the value comes from.

    Args:
      name: of the flag.
      default: its path.
      text: its help.
      options: of `flags.DEFINE`, such as `required`.
    """
    serializer = flags.ArgumentSerializer[str]()
    flags.DEFINE(
        _TextPathParser(), name, default, text, serializer=serializer, **options
    )


def define_paths(name: str, text: str, **options: Any) -> None:
    """Defines a flag that may be given several times, for the path of an input each.

    Any name that a file can have is taken.
    """
    serializer = flags.ArgumentSerializer[str]()
    flags.DEFINE_multi(_PathParser(), serializer, name, [], text, **options)


def validator(check: Callable[[Any], object]) -> Callable[[Any], bool]:
    """Turns a check that raises errors.UserError into a validator as absl wants it.

    Args:
      check: gets the value of a flag or, for `flags.register_multi_flags_validator`,
        the values of several by name; what it returns is not looked at.
    """

    def accepts(value: Any) -> bool:
        try:
            check(value)
        except errors.UserError as error:
            raise flags.ValidationError(str(error)) from error
        return True

    return accepts


# What float32 can tell from 1 and 0; a rounder number is easier to remember.
_MAX_SHARE = 0.9999999
_MIN_POSITIVE, _MAX_POSITIVE = 1e-37, 1e38


def require_share(*names: str) -> None:
    """Refuses values of these flags outside of [0, 1); None is no value.

    Also what float32 rounds to 1.
    """
    for name in names:
        flags.register_validator(
            name,
            lambda x: x is None or 0 <= x <= _MAX_SHARE,
            f"expected a number in [0, 1), up to {_MAX_SHARE}",
        )


def require_positive(*names: str) -> None:
    """Refuses values of these flags that are not above 0; None is no value.

    Also what is 0 or infinite in float32.
    """
    for name in names:
        flags.register_validator(
            name,
            lambda x: x is None or _MIN_POSITIVE <= x <= _MAX_POSITIVE,
            f"expected a number above 0, {_MIN_POSITIVE} to {_MAX_POSITIVE}",
        )


def _parse_flags(argv: Sequence[str], arguments: bool, groups: Groups) -> list[str]:
    """Returns what `app.run` wants from a flags parser; a bad flag exits with 2."""
    before = argv[1 : argv.index("--")] if "--" in argv else argv[1:]
    if "--version" in before:
        _show(f"lenet-selu {VERSION}")
    if not _HELP.isdisjoint(before):
        _show(help_text(groups))
    try:
        expanded = flagfiles.expand(argv[1:])
        rest = flags.FLAGS([*argv[:1], *flagfiles.unset(expanded, flags.FLAGS)])
    except (flags.Error, ValueError) as error:  # the latter of --noNAME=value
        _fail(str(error), errors.USAGE_ERROR)
    except SystemExit:  # --helpfull and its like, which absl ends with 1
        sys.exit(0)
    if len(rest) > 1 and not arguments:
        _fail(
            f"unexpected argument {rest[1]!r}: flags start with --", errors.USAGE_ERROR
        )
    return rest


def _show(text: str) -> NoReturn:
    """Prints a text and ends the program; `| head` may take what it wants of it."""
    print(text, flush=True)
    if not isinstance(getattr(sys.stdout, "error", None), BrokenPipeError):
        _check_shown()
    sys.exit(0)


def _check_shown() -> None:
    """Ends the program with 1 if what it printed was lost, its work being done."""
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if isinstance(error, BrokenPipeError):
        _fail("nobody reads standard output: only what it was to show is lost", 1)
    elif error:
        _fail(
            f"cannot write standard output ({errors.reason(error)}): only what it was"
            " to show is lost; give it room, or a reader",
            1,
        )


def help_text(groups: Groups) -> str:
    """What --help shows: the program's docstring, its flags, the exit codes.

    Args:
      groups: the flags that are in none come last.
    """
    own = {
        name: flags.FLAGS[name]
        for name in flags.FLAGS
        if not (flags.FLAGS.find_module_defining_flag(name) or "").startswith(_FOREIGN)
    }
    named = {name for names in groups.values() for name in names}
    rest = sorted(own.keys() - named)
    sections = {**groups, "Further flags" if groups else "Flags": rest}
    return "\n".join(
        [
            inspect.cleandoc(sys.modules["__main__"].__doc__ or ""),
            *(
                f"\n{title}:\n" + "\n".join(_describe(own[n]) for n in names)
                for title, names in sections.items()
                if names
            ),
            "\n--flagfile=FILE stands for the flags in that file, one in a line; what"
            " follows it\noverrules it. --unset=NAME,… takes back what was given before"
            " it. --version shows\nthe version, --helpfull absl's own flags, too.",
            "\nExit codes:",
            *(f"  {code:<5}{meaning}" for code, meaning in errors.EXIT_CODES.items()),
        ]
    )


def _describe(flag: flags.Flag) -> str:
    """A flag's name, what it takes, its default, and below that its help."""
    facts = [_range(flag)]
    if flag.default in ("", []):
        facts.append("default: none")
    elif flag.default is not None:
        facts.append("default " + (flag.default_as_str or "").strip("'"))
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
    # absl puts what an enumeration takes in front of its help.
    help_ = (flag.help or "").removeprefix(f"<{_range(flag)}>: ").replace(".;", ";")
    text = textwrap.fill(help_, 80, initial_indent=" " * 6, subsequent_indent=" " * 6)
    head = ": ".join(filter(None, [name, "; ".join(filter(None, facts))]))
    return f"  {head}\n{text}"


def _range(flag: flags.Flag) -> str:
    """The values that a flag takes, as far as its parser or its checks say."""
    if flag.boolean:
        return ""
    if isinstance(flag.parser, flags.EnumParser):
        return "|".join(flag.parser.enum_values)
    for check in flag.validators:
        if (check.message or "").startswith("expected "):
            return check.message.removeprefix("expected ")
    return flag.parser.syntactic_help


def _fail(message: str, code: int) -> NoReturn:
    console.warn(message)
    sys.exit(code)


def run(
    main: Callable[[list[str]], None],
    *,
    arguments: bool = False,
    groups: Groups | None = None,
) -> None:
    """Parses the flags and calls `main`; a user's mistake is one line, no traceback.

    Args:
      main: gets the program's name and the arguments that are no flags.
      arguments: whether there may be any.
      groups: of flags, in the order of --help.
    """

    def guarded(argv: list[str]) -> None:
        try:
            main(argv)
        except errors.UserError as error:
            _fail(str(error), error.exit_code)
        _check_shown()

    logging.set_verbosity(logging.WARNING)  # not what the checkpoint library does
    parse = functools.partial(_parse_flags, arguments=arguments, groups=groups or {})
    with console.outputs():
        try:
            console.listen()
            app.run(guarded, flags_parser=parse)
        except KeyboardInterrupt:
            _fail("interrupted", errors.INTERRUPTED)
        finally:
            console.end()
