# SPDX-License-Identifier: Apache-2.0
"""What a training run loads before its first step: nothing that it does not use."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
UNUSED = (
    *("cv2", "jinja2", "keras", "matplotlib", "pandas", "pooch", "scipy.ndimage"),
    *("scipy.stats", "sklearn", "tabulate"),
)
# To the first step: the graph is traced and called once, on a set that is built.
CODE = f"""
import sys
import train
import numpy as np

class FirstStep(Exception):
    pass

def stop(*_):
    raise FirstStep

train._log_steps = stop
images = np.zeros([8, 28, 28, 1], np.uint8)
labels = np.zeros(8, np.uint8)
train.define_flags()
FLAGS = train.FLAGS
FLAGS(["train", "--epochs=1", "--batch_size=4"])
config = {{flag.name: flag.value for flag in FLAGS.get_key_flags_for_module("train")}}
try:
    sets = train.Sets(images, labels, {{}})
    train.train(config, sets, train.Path(sys.argv[1]))
except FirstStep:
    print([name for name in {UNUSED} if name in sys.modules])
"""


def test_a_run_loads_nothing_that_its_first_step_does_not_use(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[]\n", done.stderr
