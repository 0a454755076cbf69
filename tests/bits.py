# SPDX-License-Identifier: Apache-2.0
"""Proves that a change keeps every bit of the weights, on eight recipes.

    git worktree add /tmp/before main
    python -m tests.bits /tmp/before
    python -m tests.bits /tmp/before native windows

The first trains two short epochs of each recipe in this tree and in the other checkout,
the second of two recipes only. The golden curves have tolerances, so they cannot prove
this. Both trees run as a user runs them, `python train.py …`, on the digits within
scikit-learn, each with an enlarged set that it builds itself. Every variable of the
last checkpoint counts: weights, their average, slots, moving averages. Prints a line
for each recipe, and exits with 1 if one differs. Takes three minutes on two cores.
"""

from system import device  # isort: skip  (first: it loads TensorFlow)

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from training import checkpoints, manifest

ROOT = Path(__file__).resolve().parent.parent
MAIN = "--flagfile=lenet.flags"
RECIPES = {
    "one_replica": [MAIN, "--replicas=1", "--threads=1"],
    "native": [MAIN, "--kernels=native", "--replicas=2"],
    "tensorflow": [MAIN, "--kernels=tensorflow", "--replicas=2"],
    "article": ["--flagfile=flags/lenet_article.flags"],
    "online": [MAIN, "--rotation=15", "--elastic_alpha=34", "--elastic_sigma=4"],
    "plateau": [
        *("--network=lenet", "--batch_norm=conv", "--schedule=plateau", "--keep_best"),
        *("--plateau_patience=1", "--weight_average=0.9", "--validation_size=200"),
    ],
    "windows": [
        *("--network=lenet", "--batch_norm=all", "--sampler=epochs", "--memory_mb=7"),
        *("--deform=elastic,affine", "--multiply=8"),
    ],
    "bn_cnn": ["--flagfile=flags/bn_cnn.flags", "--validation_size=200"],
}
SHORT = ("--dataset=digits", "--epochs=2", "--epoch_images=3200")


class BitsError(Exception):
    """A recipe that one of the trees cannot train."""


def digest(tree: Path, arguments: list[str]) -> str:
    """SHA-256 of all variables after `python train.py arguments` in a checkout.

    Raises:
      BitsError: train.py fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        places = [f"--run_dir={folder}/run", f"--augmented_dir={folder}/augmented"]
        done = subprocess.run(
            [sys.executable, "train.py", *arguments, *SHORT, *places],
            cwd=tree,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise BitsError(f"{tree}: {last}")
        return of_variables(Path(folder, "run", checkpoints.FOLDER))


def of_variables(folder: Path) -> str:
    """SHA-256 of the names and values of all variables in the last checkpoint."""
    last = checkpoints.path(folder, checkpoints.steps(folder)[-1])
    reader = device.tf.train.load_checkpoint(str(last / manifest.STATE))
    sha256 = hashlib.sha256()
    for name in sorted(reader.get_variable_to_shape_map()):
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH":
            sha256.update(name.encode())
            sha256.update(np.asarray(reader.get_tensor(name)).tobytes())
    return sha256.hexdigest()


def main(other: Path, names: list[str]) -> int:
    """Compares some recipes, or all if none is named; returns how many differ."""
    differing = 0
    for name in names or RECIPES:
        ours, theirs = (digest(tree, RECIPES[name]) for tree in (ROOT, other))
        differing += ours != theirs
        verdict = "equal" if ours == theirs else "DIFFERENT"
        print(f"{name:12} {ours[:16]} {theirs[:16]} {verdict}", flush=True)
    return differing


if __name__ == "__main__":
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= RECIPES.keys():
        sys.exit(
            "usage: python -m tests.bits CHECKOUT [RECIPE …], where a RECIPE is one of"
            f" {', '.join(RECIPES)}"
        )
    try:
        sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]) > 0)
    except BitsError as error:
        sys.exit(str(error))
