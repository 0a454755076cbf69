# SPDX-License-Identifier: Apache-2.0
"""Process of a peer: makes it, then answers each line of standard input.

    echo 100 | python -m benchmarks.serve benchmarks.step_peers keras '{"threads": 2}'

The first line of output is null, or says what the peer needs but lacks. One line for
each answer follows. All lines are JSON. See `benchmarks.peers`.
"""

import importlib
import json
import os
import sys
from typing import Any

from benchmarks import peers
from system import errors


def main(module: str, name: str, settings: str) -> None:
    """Serves the peer `name` of a module until the input ends."""
    # What libraries print goes to standard error; only answers go to the pipe.
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(answer: Any) -> None:
        print(json.dumps(answer), file=pipe, flush=True)

    make = importlib.import_module(module).PEERS[name]
    try:
        answer = make(**json.loads(settings))
    except (ImportError, peers.Missing) as error:
        send(" ".join(str(error).split()))
        return
    send(None)
    for line in iter(sys.stdin.readline, ""):
        send(answer(json.loads(line)))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except errors.UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(errors.INTERRUPTED)  # the parent prints the message
