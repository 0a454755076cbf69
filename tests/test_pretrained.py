# SPDX-License-Identifier: Apache-2.0
"""The network that comes with the project scores as it says, and reads at once."""

import json

import numpy as np
from PIL import Image

import evaluation
import pretrained
from benchmarks import photos, pictures
from tests.helpers import command

LARGEST_BYTES = 2_000_000


def test_it_is_small():
    files = [file for file in pretrained.ROBUST.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < LARGEST_BYTES


def test_it_reads_mnists_test_digits_as_its_result_says(mnist):
    reader = evaluation.load()
    found = reader.predict(mnist.test_images)
    wrong = int((found.classes != mnist.test_labels).sum())
    result = json.loads((pretrained.ROBUST / "result.json").read_text("utf-8"))
    # Another processor may round a digit over to its second class.
    assert abs(wrong - result["test"]["errors"]) <= 2
    assert wrong <= 45


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
