# SPDX-License-Identifier: Apache-2.0
"""Fuzzes the readers of outside bytes and reports the findings.

    python -m tests.fuzz --seconds=600 --only=idx,csv

Each reader runs in its own process, with limited memory and a time limit per input. If
a finding ends the process, another takes over; a finding counts if a second process
reproduces it. Inputs that reached new code stay in build/fuzz/, and the next session
starts from them; findings stay there, too. The table goes to tests/fuzz/results.json
and results.md.
"""

if __name__ == "__main__":  # first: the imports below may take seconds
    from system import console

    console.start()

import fcntl
import json
import os
import platform
import re
import subprocess
import sys
import time
from concurrent import futures
from pathlib import Path
from typing import Any

from absl import flags
from tabulate import tabulate

from system import cli, errors, files, untrusted
from tests.fuzz.readers import READERS
from tests.fuzz.seeds import SEEDS

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
KEPT = PROJECT / "build" / "fuzz"
RESULTS = HERE / "results.json"
TABLE = HERE / "results.md"

MEMORY_MB = 1024  # TensorFlow, which some readers load, takes 400 of them
STALLED_SECONDS = 600  # of the clock; fuzz.target limits processor time
INPUT_BYTES = 1 << 16  # longest input tried
MOST_FINDINGS = 10  # of one reader, after which we stop

HEADER = ["reader", "inputs", "seconds", "coverage", "findings"]


def fuzz(name: str, seconds: int, kept: Path = KEPT) -> dict[str, Any]:
    """Fuzzes one reader.

    Args:
      name: a key of `READERS`.
      seconds: how long.
      kept: folder for inputs that reached new code, and for findings.

    Returns:
      inputs (number tried), seconds, coverage (lines and branches reached, as libFuzzer
      counts them), findings (paths of the inputs).

    Raises:
      errors.UserError: the fuzzer does not start.
    """
    corpus, found = _make_folders(name, kept)
    before = set(found.iterdir())
    findings: set[Path] = set()
    inputs = coverage = spent = 0
    while spent < seconds and len(findings) < MOST_FINDINGS:
        start = time.monotonic()
        code, output = _run(name, corpus, found, seconds - spent)
        inputs += _count_inputs(name, output)
        # If it ran to its end, leave out the time to load, which may be long.
        fuzzed = re.findall(r"\bDone \d+ runs in (\d+) second", output)
        spent += int(fuzzed[-1]) if fuzzed else round(time.monotonic() - start)
        coverage = max([coverage, *map(int, re.findall(r"\bcov: (\d+)", output))])
        if code == 0:
            break
        print(output[-3000:], file=sys.stderr)
        for path in set(found.iterdir()) - before - findings:
            # Atheris itself leaks memory, some 100 kB per input in code that compares a
            # lot. If a new process survives the input, the reader is not to blame.
            if _run(name, path, found, seconds)[0] == 0:
                path.unlink()
        findings = set(found.iterdir()) - before
    return {
        "inputs": inputs,
        "seconds": spent,
        "coverage": coverage,
        "findings": sorted(map(str, findings)),
    }


def _make_folders(name: str, kept: Path) -> tuple[Path, Path]:
    """Folders of the inputs to start from, the seeds among them, and of findings."""
    corpus, found = kept / name / "corpus", kept / name / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(exist_ok=True)
    for number, seed in enumerate(SEEDS[name]()):
        (corpus / f"seed-{number}").write_bytes(seed)
    return corpus, found


def _run(name: str, inputs: Path, found: Path, seconds: int) -> tuple[int, str]:
    """Runs the fuzzer until its time is up or it finds something.

    Args:
      name: a key of `READERS`.
      inputs: folder to start from and add to; or a file, then nothing else is tried.
      found: folder for findings.
      seconds: how long.

    Returns:
      exit code (0: nothing found), standard error.
    """
    limits = {
        "artifact_prefix": f"{found}{os.sep}",
        "max_len": INPUT_BYTES,
        "max_total_time": seconds,
        "print_final_stats": 1,
        "report_slow_units": STALLED_SECONDS,
        "rss_limit_mb": MEMORY_MB,
        "timeout": STALLED_SECONDS,
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.target", name, str(inputs)),
            *(f"-{key}={value}" for key, value in limits.items()),
        ],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=False,
    )
    return done.returncode, done.stderr.decode(errors="replace")


def _count_inputs(name: str, output: str) -> int:
    counts = re.findall(r"stat::number_of_executed_units:\s*(\d+)", output)
    if counts:
        return int(counts[-1])
    raise errors.UserError(
        f"the fuzzer of {name} did not run: {' '.join(output.split())[-300:]}; install"
        " it with make fuzz, which needs Python 3.11 or later on Linux"
    )


def _store(name: str, result: dict[str, Any]) -> str:
    """Adds a reader's result to the stored ones; returns the table.

    Other threads and processes may do the same at the same time.
    """
    with open(KEPT / ".lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stored = {**_stored(), name: result}
        known = {name: stored[name] for name in READERS if name in stored}
        rows = [[name, *(known[name][key] for key in HEADER[1:])] for name in known]
        table = tabulate(rows, HEADER, tablefmt="github", intfmt=",")
        results = {"python": platform.python_version(), "readers": known}
        with files.replacing(RESULTS) as file:
            file.write(json.dumps(results, indent=1).encode() + b"\n")
        with files.replacing(TABLE) as file:
            file.write(f"{table}\n".encode())
        return table


def _stored() -> dict[str, Any]:
    try:
        return untrusted.read_json(RESULTS)["readers"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def main(_: list[str]) -> None:
    """Fuzzes the readers that --only names; results of all others stay.

    Raises:
      errors.UserError: something was found.
    """
    findings: list[str] = []
    table = ""

    def fuzz_one(name: str) -> tuple[list[str], str]:
        print(f"{name}: {flags.FLAGS.seconds} s", file=sys.stderr)
        result = fuzz(name, flags.FLAGS.seconds)
        found = result["findings"]
        return found, _store(name, {**result, "findings": len(found)})

    with futures.ThreadPoolExecutor(flags.FLAGS.jobs) as pool:
        for found, table in pool.map(fuzz_one, flags.FLAGS.only or READERS):
            findings += found
    print(table)
    if findings:
        raise errors.UserError(
            f"{len(findings)} findings, with the inputs {', '.join(findings)}: correct"
            " the reader, and keep each input as a test in tests/test_fuzz.py"
        )


if __name__ == "__main__":
    names = ", ".join(READERS)
    flags.DEFINE_integer("seconds", 60, "Time for each reader.", lower_bound=1)
    flags.DEFINE_integer("jobs", 1, "Readers fuzzed at the same time.", lower_bound=1)
    flags.DEFINE_list("only", [], f"Readers to fuzz, of {names}; default: all.")
    flags.register_validator(
        "only", lambda only: set(only) <= set(READERS), f"expected some of {names}"
    )
    cli.run(main)
