# SPDX-License-Identifier: Apache-2.0
"""Fuzzes the readers one after another, and tells what was found.

    python -m tests.fuzz --seconds=600 --only=idx,csv

Each runs in a process of its own, which may have so much memory and take so long over
one input; it is started again where a finding ended it, and a finding counts if another
process finds it too. Inputs that reached new code stay in build/fuzz/, and the next
time begins with them; findings are kept there too.
The table goes to fuzz/results.json and fuzz/results.md.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
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
from tests.fuzz import readers

HERE = Path(__file__).resolve().parent
KEPT = HERE.parent / "build" / "fuzz"
RESULTS = HERE / "results.json"
TABLE = HERE / "results.md"

MEMORY_MB = 1024  # TensorFlow, which some readers load, takes 400 of them
STALLED_SECONDS = 600  # by the clock; fuzz.target counts those of the processor
LONGEST = 1 << 16  # bytes of an input
MOST_FINDINGS = 10  # of a reader, then it is left

HEADER = ["reader", "inputs", "seconds", "coverage", "findings"]


def fuzz(name: str, seconds: int, kept: Path = KEPT) -> dict[str, Any]:
    """Fuzzes one reader.

    Args:
      name: a key of `readers.READERS`.
      seconds: to go on for.
      kept: folder for the inputs that reached new code, and for findings.

    Returns:
      inputs (tried), seconds, coverage (lines and branches reached, as libFuzzer
      counts them), findings (paths of the inputs).

    Raises:
      errors.UserError: the fuzzer does not start.
    """
    corpus, found = kept / name / "corpus", kept / name / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(exist_ok=True)
    for number, seed in enumerate(readers.READERS[name].seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    before = set(found.iterdir())
    inputs, coverage, spent = 0, 0, 0
    while spent < seconds:
        start = time.monotonic()
        code, said = _run(name, corpus, found, seconds - spent)
        counts = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said)
        if not counts:
            raise errors.UserError(
                f"the fuzzer of {name} did not run: {' '.join(said.split())[-300:]};"
                " install it by make fuzz, which wants Python 3.11 or later on Linux"
            )
        inputs += int(counts[-1])
        # Without the seconds of loading, which may be many, if it came to its end.
        fuzzed = re.findall(r"\bDone \d+ runs in (\d+) second", said)
        spent += int(fuzzed[-1]) if fuzzed else round(time.monotonic() - start)
        coverage = max([coverage, *map(int, re.findall(r"\bcov: (\d+)", said))])
        if code == 0:
            break
        print(said[-3000:], file=sys.stderr)
        for path in set(found.iterdir()) - before:
            # Atheris itself loses memory, some 100 kB an input where much is compared:
            # what a new process stands was no fault of the reader.
            if _run(name, path, found, seconds)[0] == 0:
                path.unlink()
        if len(set(found.iterdir()) - before) >= MOST_FINDINGS:
            break
    return {
        "inputs": inputs,
        "seconds": spent,
        "coverage": coverage,
        "findings": sorted(str(path) for path in set(found.iterdir()) - before),
    }


def _run(name: str, inputs: Path, found: Path, seconds: int) -> tuple[int, str]:
    """Runs the fuzzer until its time is over or it finds something.

    Args:
      name: of the reader.
      inputs: folder to begin with and to add to; or a file, which is all that is tried.
      found: folder for findings.
      seconds: to go on for.

    Returns:
      exit code, 0 if nothing was found; what the fuzzer said.
    """
    limits = {
        "artifact_prefix": f"{found}{os.sep}",
        "max_len": LONGEST,
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
        cwd=HERE.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=False,
    )
    return done.returncode, done.stderr.decode(errors="replace")


def _store(name: str, result: dict[str, Any]) -> str:
    """Adds a reader's result to those of the others; returns the table.

    Others may do the same meanwhile.
    """
    with open(KEPT / ".lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _store_alone(name, result)


def _store_alone(name: str, result: dict[str, Any]) -> str:
    stored = {**_earlier(), name: result}
    known = {name: stored[name] for name in readers.READERS if name in stored}
    rows = [
        [name, some["inputs"], some["seconds"], some["coverage"], some["findings"]]
        for name, some in known.items()
    ]
    table = tabulate(rows, HEADER, tablefmt="github", intfmt=",")
    results = {"python": platform.python_version(), "readers": known}
    with files.replacing(RESULTS) as file:
        file.write(json.dumps(results, indent=1).encode() + b"\n")
    with files.replacing(TABLE) as file:
        file.write(f"{table}\n".encode())
    return table


def _earlier() -> dict[str, Any]:
    try:
        return untrusted.read_json(RESULTS)["readers"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def main(_: list[str]) -> None:
    """Fuzzes what the flags name; the results of other readers stay, also of those
    that another process fuzzes meanwhile.

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
        for found, table in pool.map(fuzz_one, flags.FLAGS.only or readers.READERS):
            findings += found
    print(table)
    if findings:
        raise errors.UserError(
            f"{len(findings)} findings, the inputs are {', '.join(findings)}: mend the"
            " reader, and keep each as a test in tests/test_fuzz.py"
        )


if __name__ == "__main__":
    flags.DEFINE_integer("seconds", 60, "For each reader.", lower_bound=1)
    flags.DEFINE_integer("jobs", 1, "Readers at a time.", lower_bound=1)
    flags.DEFINE_list(
        "only", [], f"Readers, of {', '.join(readers.READERS)}; default: all."
    )
    flags.register_validator(
        "only",
        lambda names: set(names) <= set(readers.READERS),
        f"expected some of {', '.join(readers.READERS)}",
    )
    cli.run(main)
