# SPDX-License-Identifier: Apache-2.0
"""The network that comes with the project scores as it says, and reads at once."""

import csv
import json

import evaluation
import pretrained
from photos import make_page
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


def test_a_photo_is_read_without_training(mnist, tmp_path):
    pages = tmp_path / "pages"
    count = make_page.write(pages, mnist.test_images, mnist.test_labels, 1)
    readings = tmp_path / "readings.csv"
    done = command("eval.py", f"--images={pages}", f"--readings={readings}")
    assert (done.returncode, done.stderr) == (0, "")
    with open(readings, encoding="utf-8", newline="") as file:
        read = [row[:4] for row in csv.reader(file)]
    with open(pages / make_page.KEY, encoding="utf-8", newline="") as file:
        key = list(csv.reader(file))
    assert len(key) == count + 1
    assert sum(row not in read for row in key) <= 1
