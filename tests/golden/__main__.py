# SPDX-License-Identifier: Apache-2.0
"""Declares that results which differ from the golden ones were meant to.

    python -m tests.golden

Writes down those that differ, and only those; the reason belongs in the commit.
"""

from system import device  # isort: skip  (first: it loads TensorFlow)

from tests import golden

# Of the main run. With more, the last bits differ from machine to machine.
device.set_threads(1)
for line in golden.declare() or ["nothing differs"]:
    print(line)
