# SPDX-License-Identifier: Apache-2.0
"""A small run, once undisturbed and once interrupted, for all tests of the loop."""

from dataclasses import replace

import pytest

from config import Config
from tests.loop import LENET, SMALL, STEPS, trained
from training import checkpoints, history
from training.sets import Sets


@pytest.fixture(scope="session")
def config():
    """The defaults with SMALL's values."""
    return Config(**SMALL)


@pytest.fixture(scope="session")
def lenet():
    """The same of a LeNet with batch norm and dropout, on two replicas."""
    return Config(**LENET)


@pytest.fixture(scope="session")
def short(lenet):
    """The same with what short recipes want; a step is lost between two steps back."""
    own = {"optimizer": "muon", "lookahead": 4, "bias_rate": 8.0, "mixup": 0.4}
    return replace(lenet, **own, learning_rate=0.02)


@pytest.fixture(scope="session")
def sets(digits):
    """128 images to train on, 50 held out, 60 to test on."""
    images, labels = digits.train_images, digits.train_labels
    scored = {
        "validation": (images[200:250], labels[200:250]),
        "test": (digits.test_images[:60], digits.test_labels[:60]),
    }
    return Sets(images[:128], labels[:128], scored)


@pytest.fixture(scope="session")
def finished(config, sets, tmp_path_factory):
    """Directory of an undisturbed run."""
    run_dir = tmp_path_factory.mktemp("finished")
    trained(config, sets, run_dir)
    return run_dir


@pytest.fixture(scope="session")
def interrupted(config, sets, tmp_path_factory):
    """Directory of the same run, interrupted at the start of its third epoch."""
    run_dir = tmp_path_factory.mktemp("interrupted")
    write = history.write

    def interrupt(run_dir, rows):
        write(run_dir, rows)
        if len(rows) == 3:  # after the third epoch, before its checkpoint
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trained(config, sets, run_dir)
    assert checkpoints.steps(run_dir / "checkpoints") == [STEPS, 2 * STEPS]
    return run_dir
