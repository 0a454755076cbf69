# SPDX-License-Identifier: Apache-2.0
"""A measurement in a process of its own, which prints a line of JSON last.

With it the flags and the pictures of the benchmarks that are made of such processes.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from absl import flags

import cli
import files

FLAGS = flags.FLAGS

PROJECT = Path(__file__).resolve().parent.parent


PICTURES = (".pdf", ".png", ".svg")


class ProcessError(cli.UserError):
    """A measurement's process failed."""


def run(*arguments: str) -> tuple[str, float]:
    """Runs `python ARGUMENTS` in the project's folder.

    Returns:
      What it printed, and its wall-clock seconds from first to last.

    Raises:
      ProcessError: it failed; the message ends in the last line that it wrote on
        standard error.
    """
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        if done.returncode < 0:
            reason = f"killed by {signal.Signals(-done.returncode).name}"
        else:
            reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise ProcessError(f"python {' '.join(arguments)} failed: {reason}")
    return done.stdout, seconds


def measure(module: str, peer: str, options: dict[str, Any]) -> tuple[dict, float]:
    """Runs `python -m MODULE --peer=PEER --options=OPTIONS`.

    Returns:
      The JSON object of its last line, and its wall-clock seconds.

    Raises:
      ProcessError: as of `run`.
    """
    printed, seconds = run(
        "-m", module, f"--peer={peer}", f"--options={json.dumps(options)}"
    )
    return json.loads(printed.splitlines()[-1]), seconds


def define_flags(peers: Collection[str]) -> None:
    """The flags that such benchmarks share; none is named like one of train.py's.

    Args:
      peers: what can be measured alone.
    """
    flags.DEFINE_integer(
        "cpu_threads", 0, "CPU threads; 0: as each has it by itself.", lower_bound=0
    )
    flags.DEFINE_string("plot", None, "Picture to draw, such as growth.svg.")
    flags.DEFINE_enum(
        "peer",
        None,
        sorted(peers),
        "Measure this one alone, once, in this process, and print a line of JSON.",
    )
    flags.DEFINE_string("options", "{}", "Of --peer: a JSON object.")
    flags.register_validator(
        "plot",
        lambda name: name is None or Path(name).suffix in PICTURES,
        f"expected a name that ends in {', '.join(PICTURES)}",
    )


def options(names: Collection[str]) -> dict[str, Any]:
    """What --options says.

    Args:
      names: that it may hold.

    Raises:
      UsageError: it is no JSON object of these.
    """
    try:
        found = json.loads(FLAGS.options)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found.keys() <= set(names):
        raise cli.UsageError(
            f"--options={FLAGS.options}: expected a JSON object with any of"
            f" {', '.join(names)}"
        )
    return found


def save(figure: Any, path: str | Path) -> None:
    """Writes a matplotlib figure to a file that is whole or not there.

    Args:
      figure: to be drawn.
      path: its suffix is one of `PICTURES`.

    Raises:
      UserError: it cannot be written.
    """
    path = Path(path)
    try:
        with files.replacing(path) as file:
            figure.savefig(file, format=path.suffix[1:], dpi=160)
    except OSError as error:
        raise cli.UserError(
            f"cannot write the picture {path}: {error.strerror}; choose another --plot"
        ) from None
