# SPDX-License-Identifier: Apache-2.0
"""Command lines of all programs: flags that are checked, --help, one-line errors."""

import functools
import inspect
import json
import os
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from system import console, errors, flagfiles

flags.disclaim_key_flags()  # a path flag belongs to the module that defines it

VERSION = "0.5.1"

# Headings of --help, each with the names of its flags.
Groups = Mapping[str, Sequence[str]]


def options(
    functions: Iterable[Callable],
    names: Iterable[str],
    values: Mapping[str, Any],
    what: str,
) -> dict[str, Any]:
    """Keyword arguments of functions, from the flags of the same names.

    Args:
      functions: most often one; their parameters that are among `names` have defaults.
      names: flags that some function of this kind takes.
      values: values of flags by name; None or a missing one stands for the default.
      what: name of the functions for the user, such as "--network=mlp".

    Raises:
      errors.UsageError: a flag is set that none of the functions takes.
    """
    parameters: dict[str, inspect.Parameter] = {}
    for function in functions:
        parameters |= inspect.signature(function).parameters
    own = sorted(set(names) & set(parameters))
    given = {name: values[name] for name in names if values.get(name) is not None}
    if foreign := sorted(given.keys() - set(own)):
        has_no, takes = (
            ", ".join(f"--{name}" for name in names) for names in (foreign, own)
        )
        raise errors.UsageError(
            f"{what} has no {has_no}; it takes {takes or 'none'}; to drop what a"
            f" flagfile sets, add --unset={','.join(foreign)} after it"
        )
    values = {name: given.get(name, parameters[name].default) for name in own}
    # As they are when read from a file: tuples become lists.
    return json.loads(json.dumps(values))


class _PathParser(flags.ArgumentParser[str]):
    """Replaces a leading ~ by the home directory.

    A shell does not do so in the lines of a flagfile, nor in --run_dir=~/x.
    """

    def parse(self, argument: str) -> str:
        return os.path.expanduser(argument)


class _TextPathParser(_PathParser):
    """Refuses paths that do not fit in one line of text, as in flags.txt and tables."""

    def parse(self, argument: str) -> str:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise ValueError("not UTF-8: rename it") from None
        if re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029]", argument):
            raise ValueError("has control characters: rename it")
        return super().parse(argument)


def define_path(name: str, default: str | None, text: str, **options: Any) -> None:
    """Defines a flag for a path, with options of `flags.DEFINE`; ~ is expanded."""
    serializer = flags.ArgumentSerializer[str]()
    flags.DEFINE(
        _TextPathParser(), name, default, text, serializer=serializer, **options
    )


def define_paths(name: str, text: str, **options: Any) -> None:
    """Defines a flag for an input path; it may be repeated.

    Accepts any name that a file can have.
    """
    serializer = flags.ArgumentSerializer[str]()
    flags.DEFINE_multi(_PathParser(), serializer, name, [], text, **options)


def validator(check: Callable[[Any], object]) -> Callable[[Any], bool]:
    """Turns a check that raises `errors.UserError` into an absl validator.

    The check takes the value of a flag; its result is ignored.
    """

    def accepts(value: Any) -> bool:
        try:
            check(value)
        except errors.UserError as error:
            raise flags.ValidationError(str(error)) from error
        return True

    return accepts


def require_together(
    names: Sequence[str],
    check: Callable[[Any], object],
    flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
    """Requires of several flags that `check` raises no UserError.

    Its argument has their values as attributes.
    """
    flags.register_multi_flags_validator(
        list(names),
        validator(lambda values: check(types.SimpleNamespace(**values))),
        flag_values=flag_values,
    )


def _parse_flags(argv: Sequence[str], arguments: bool, groups: Groups) -> list[str]:
    """A flags parser for `app.run`: returns what are no flags, exits on a bad flag."""
    before = argv[1 : argv.index("--")] if "--" in argv else argv[1:]
    if "--version" in before:
        _show(f"lenet-selu {VERSION}")
    if not {"--help", "-help", "--helpshort", "-h", "-?"}.isdisjoint(before):
        _show(help_text(groups))
    try:
        expanded = flagfiles.expand(argv[1:])
        rest = flags.FLAGS([*argv[:1], *flagfiles.unset(expanded, flags.FLAGS)])
    except (flags.Error, ValueError) as error:  # ValueError: --noNAME=value
        _fail(str(error), errors.USAGE_ERROR)
    except SystemExit:  # --helpfull and the like; absl exits with 1
        sys.exit(0)
    if len(rest) > 1 and not arguments:
        _fail(
            f"unexpected argument {rest[1]!r}: flags start with --", errors.USAGE_ERROR
        )
    return rest


def _show(text: str) -> NoReturn:
    """Prints a text and exits; the reader may stop early, as `head` does."""
    print(text, flush=True)
    if not isinstance(getattr(sys.stdout, "error", None), BrokenPipeError):
        _check_shown()
    sys.exit(0)


def _check_shown() -> None:
    """Exits with 1 if some of the output was lost, although the work is done."""
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if isinstance(error, BrokenPipeError):
        _fail("nobody reads standard output: its text is lost, the work is done", 1)
    elif error:
        _fail(
            f"cannot write standard output ({errors.reason(error)}): its text is lost,"
            " the work is done; free some disk space, or redirect it",
            1,
        )


def help_text(groups: Groups) -> str:
    """Text of --help: the program's docstring, its flags, the exit codes.

    Groups are headings, each with its flags; flags without a heading come last.
    """
    foreign = ("absl.", "tensorflow.", "tensorboard.")
    own = {
        name: flags.FLAGS[name]
        for name in flags.FLAGS
        if not (flags.FLAGS.find_module_defining_flag(name) or "").startswith(foreign)
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
            "\n--flagfile=FILE reads flags from a file, one per line; flags after it"
            " override it.\n--unset=NAME,… drops flags that were set before it."
            " --version prints the version,\n--helpfull lists absl's flags, too.",
            "\nExit codes:",
            *(f"  {code:<5}{meaning}" for code, meaning in errors.EXIT_CODES.items()),
        ]
    )


def _describe(flag: flags.Flag) -> str:
    """A flag's name, range and default; its help on the lines below."""
    facts = [_range(flag)]
    if flag.default in ("", []):
        facts.append("default: none")
    elif flag.default is not None:
        facts.append("default " + (flag.default_as_str or "").strip("'"))
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
    # absl puts the values of an enumeration in front of its help.
    help_ = (flag.help or "").removeprefix(f"<{_range(flag)}>: ").replace(".;", ";")
    text = textwrap.fill(help_, 80, initial_indent=" " * 6, subsequent_indent=" " * 6)
    head = ": ".join(filter(None, [name, "; ".join(filter(None, facts))]))
    return f"  {head}\n{text}"


def _range(flag: flags.Flag) -> str:
    """Values that a flag takes, as far as its parser and validators say."""
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
    """Parses the flags and calls `main`; a user's mistake prints one line and exits.

    Args:
      main: takes the program's name and the arguments that are not flags.
      arguments: whether there may be such arguments.
      groups: headings of --help, each with its flags.
    """

    def guarded(argv: list[str]) -> None:
        try:
            main(argv)
        except errors.UserError as error:
            _fail(str(error), error.exit_code)
        _check_shown()

    logging.set_verbosity(logging.WARNING)  # hides what the checkpoint library logs
    parse = functools.partial(_parse_flags, arguments=arguments, groups=groups or {})
    with console.outputs():
        try:
            console.listen()
            app.run(guarded, flags_parser=parse)
        except KeyboardInterrupt:
            _fail("interrupted", errors.INTERRUPTED)
        finally:
            console.end()
