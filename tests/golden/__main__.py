# SPDX-License-Identifier: Apache-2.0
"""Declares that all results that differ from the golden ones were meant to change.

    python -m tests.golden

Stores only those that differ. Give the reason in the commit.
"""

from system import device  # isort: skip  (first: it loads TensorFlow)

from tests import golden

# For the main run. With more threads, the last bits differ from machine to machine.
device.set_threads(1)
for line in golden.declare() or ["nothing differs"]:
    print(line)
