# SPDX-License-Identifier: Apache-2.0
"""The networks that come with the project score as they say, and read at once."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluation
import pretrained
from benchmarks import photos, pictures
from tests.helpers import command

LARGEST_BYTES = 2_000_000
NETWORKS = sorted(p.parent for p in Path(pretrained.__file__).parent.glob("*/run.json"))


@pytest.mark.parametrize("run_dir", NETWORKS, ids=lambda path: path.name)
def test_each_is_small_and_reads_mnists_test_digits_as_its_result_says(run_dir, mnist):
    files = [file for file in run_dir.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < LARGEST_BYTES
    found = evaluation.load(run_dir).predict(mnist.test_images)
    wrong = int((found.classes != mnist.test_labels).sum())
    result = json.loads((run_dir / "result.json").read_text("utf-8"))
    # Another processor may round a digit over to its second class.
    assert abs(wrong - result["test"]["errors"]) <= 2
    assert wrong <= 45


def test_the_one_for_photos_is_the_default(mnist):
    ours = evaluation.load().predict(mnist.test_images[:100])
    named = evaluation.load(pretrained.ROBUST).predict(mnist.test_images[:100])
    np.testing.assert_array_equal(ours.probabilities, named.probabilities)
    assert pretrained.ROBUST in NETWORKS


def test_pages_are_read(mnist, tmp_path):
    made = list(pictures.made_pages(tmp_path, mnist, [1, 2]))
    program = photos.ours(evaluation.load().run.predict)
    (count,) = photos.measure(program, made).values()
    assert count.digits > 60
    assert count.right >= count.digits - 2 and count.besides <= 1


def test_a_photo_is_read_without_a_run(tmp_path):
    page = np.full((100, 200), 255, np.uint8)
    page[20:80, 40:48] = page[20:80, 140:148] = 0
    Image.fromarray(page).save(tmp_path / "page.png")
    done = command("eval.py", f"--images={tmp_path}/page.png")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [(row[1], row[2]) for row in rows] == [("1.1", "1"), ("1.2", "1")]
