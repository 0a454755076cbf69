# SPDX-License-Identifier: Apache-2.0
"""Fuzzes one reader with atheris; `python -m tests.fuzz` starts it.

    python -m tests.fuzz.target idx CORPUS -max_total_time=60

All arguments after the reader's name are libFuzzer's.
"""

import signal
import sys

import atheris

INPUT_SECONDS = 20  # of processor time, which does not pass while the machine is busy

# Code that counts as coverage: ours, and the Python code that it uses. (zlib and json's
# scanner are written in C and cannot be measured.)
INSTRUMENTED = [
    *("augment", "data", "evaluation", "photos", "system", "training"),
    *("absl.flags._argument_parser", "absl.flags._flag", "absl.flags._flagvalues"),
    *("json", "numpy.lib._format_impl", "PIL", "zipfile"),
]


def main(argv: list[str]) -> None:
    """Fuzzes until libFuzzer's time is up or it finds something."""
    program, name, *arguments = argv
    # Reading the seeds here imports all that the reader needs, so it is instrumented.
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        from absl.flags import _helpers

        from tests.fuzz import readers, seeds

        # For each error it would look for similar flags, for a tenth of a second.
        _helpers.get_flag_suggestions = lambda attempt, longopt_list: []
        for seed in seeds.SEEDS[name]():
            readers.check(name, seed)

    def read(content: bytes) -> None:
        signal.setitimer(signal.ITIMER_PROF, INPUT_SECONDS)
        readers.check(name, content)

    signal.signal(signal.SIGPROF, _time_out)
    atheris.Setup([program, *arguments], read)
    atheris.Fuzz()


def _time_out(*_: object) -> None:
    raise TimeoutError(f"an input takes more than {INPUT_SECONDS} s")


if __name__ == "__main__":
    main(sys.argv)
