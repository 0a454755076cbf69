# SPDX-License-Identifier: Apache-2.0
"""One reader under atheris; `python -m tests.fuzz` starts it.

    python -m tests.fuzz.target idx CORPUS -max_total_time=60

What follows the reader's name are libFuzzer's arguments.
"""

import signal
import sys

import atheris

INPUT_SECONDS = 20  # of the processor: those of the clock also pass while it waits

# What counts as new code: ours, and what it leans on that is written in Python.
# (zlib and json's scanner are C and are not seen.)
INSTRUMENTED = [
    *("augment", "cli", "data", "evaluation", "flagfiles", "training", "untrusted"),
    *("absl.flags._argument_parser", "absl.flags._flag", "absl.flags._flagvalues"),
    *("json", "numpy.lib._format_impl", "PIL", "zipfile"),
]


def main(argv: list[str]) -> None:
    """Fuzzes until libFuzzer's time is over or something is found."""
    program, name, *arguments = argv
    # A seed of each kind is read in here, so that all that is imported is seen.
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        from absl.flags import _helpers

        from tests.fuzz import readers

        reader = readers.READERS[name]
        # Looks for flags of similar names for a tenth of a second, each time.
        _helpers.get_flag_suggestions = lambda attempt, longopt_list: []
        for seed in reader.seeds():
            readers.check(reader, seed)

    def read(content: bytes) -> None:
        signal.setitimer(signal.ITIMER_PROF, INPUT_SECONDS)
        readers.check(reader, content)

    signal.signal(signal.SIGPROF, _give_up)
    atheris.Setup([program, *arguments], read)
    atheris.Fuzz()


def _give_up(*_: object) -> None:
    raise TimeoutError(f"an input takes more than {INPUT_SECONDS} s")


if __name__ == "__main__":
    main(sys.argv)
