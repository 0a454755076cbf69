# SPDX-License-Identifier: Apache-2.0
"""Tests of reading photos: table, CSV, JSON, picture; the command; whole pages."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from benchmarks import photos as counting
from benchmarks import pictures
from data import decode
from evaluation import figures, scoring, trained
from photos import annotate, make_page, orientation, paper, reading
from system import errors
from tests import programs
from tests.helpers import command

SURE = reading.Reading(1, 1, (20, 30, 40, 60), 7, 0.987654321, 1, 0.01)
DOUBTFUL = reading.Reading(1, 10, (80, 30, 30, 60), 4, 0.5, 9, 0.4)
PAGES = [
    reading.Page(Path("a,b.png"), [SURE, DOUBTFUL]),
    reading.Page(Path("empty.png"), []),
]


def test_readings_as_a_table():
    lines = reading.show(PAGES).splitlines()
    assert [line.split() for line in lines[2:4]] == [
        ["a,b.png", "1.1", "7", "98.8%", "1", "1.0%"],
        ["a,b.png", "1.10", "4", "50.0%", "9", "40.0%", "?"],
    ]
    assert lines[4] == "empty.png: no digits found"
    assert lines[5].startswith("1 of 2 marked ?")


def test_readings_as_csv(tmp_path):
    reading.write(tmp_path / "readings.csv", PAGES)
    with open(tmp_path / "readings.csv", encoding="utf-8", newline="") as file:
        header, first, second = csv.reader(file)
    assert header == list(reading.COLUMNS)
    assert first == [
        *("a,b.png", "1", "1", "7", "0.987654", "1", "0.01", "0"),
        *("20", "30", "40", "60"),
    ]
    assert second[header.index("doubtful")] == "1"


NAMES = {
    '=HYPERLINK("http:..evil").png': './=HYPERLINK("http:..evil").png',
    "-1+1.png": "./-1+1.png",
    "＝1.png": "./＝1.png",
    "a;=1+1.png": "a;=1+1.png",
    "\t=1\x1b[2J\n\u202eé.png": "\\t=1\\x1b[2J\\n\\u202eé.png",
    "\udcff.png": "\\udcff.png",
}


@pytest.mark.parametrize("name", NAMES)
def test_file_names_cannot_act_as_formulas_or_move_the_cursor(tmp_path, name):
    pages = [reading.Page(Path(name), [SURE])]
    reading.write(tmp_path / "readings.csv", pages)
    text = (tmp_path / "readings.csv").read_text("utf-8")
    _, row = csv.reader(text.splitlines())
    assert (row[0], row[3]) == (NAMES[name], "7")
    line = text.splitlines()[1]
    assert ";" not in line or line[0] == '"'
    reading.write(tmp_path / "readings.json", pages)
    (page,) = json.loads((tmp_path / "readings.json").read_text("ascii"))
    assert page["file"] == name
    assert reading.show(pages).replace("\n", "").isprintable()


def test_readings_as_json(tmp_path):
    reading.write(tmp_path / "readings.JSON", PAGES)
    first, empty = json.loads((tmp_path / "readings.JSON").read_text("utf-8"))
    assert empty == {"file": "empty.png", "digits": []}
    assert first["file"] == "a,b.png" and len(first["digits"]) == 2
    assert list(first["digits"][0]) == list(reading.COLUMNS[1:])
    assert first["digits"][0]["digit"] == 7 and first["digits"][1]["left"] == 80


def test_a_missing_folder_gives_one_line(tmp_path):
    with pytest.raises(errors.UserError, match="No such file.* another place"):
        reading.write(tmp_path / "nowhere" / "readings.csv", PAGES)
    assert not list(tmp_path.iterdir())


def test_only_links_that_the_user_names_are_followed(tmp_path):
    victim, link = tmp_path / "victim", tmp_path / "link.csv"
    for each in (link, tmp_path / "1.png"):
        each.symlink_to(victim)
    reading.write(link, PAGES)
    assert link.is_symlink() and victim.read_text().startswith("file,row")
    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((28, 28), 255, np.uint8)).save(photo)
    annotate.write(tmp_path / "1.png", reading.Page(photo, []))
    assert victim.read_text().startswith("file,row")
    assert not (tmp_path / "1.png").is_symlink()


def test_annotated_picture():
    photo = np.full((900, 1000, 3), 255, np.uint8)
    picture = annotate.draw(photo, [SURE, DOUBTFUL])
    assert picture.shape == photo.shape and photo.min() == 255
    sure, doubtful = (annotate._rgb(c) for c in (figures.BLUE, figures.ORANGE))
    assert picture[60, 20 + 40 + 3].tolist() == list(sure)
    assert picture[60, 80 + 30 + 3].tolist() == list(doubtful)
    assert np.all(picture[35:85, 25:55] == 255)  # nothing covers the digit


def test_a_small_photo_is_enlarged():
    picture = annotate.draw(np.full((28, 28, 3), 255, np.uint8), [])
    assert picture.shape == (784, 784, 3)


def test_names_of_annotated_pictures():
    paths = [Path("a/1.png"), Path("b/1.jpg"), Path("b/2.jpg")]
    names = annotate.name_files(paths, Path("read"))
    assert [name.as_posix() for name in names] == [
        *("read/1.png", "read/1-2.png", "read/2.png")
    ]
    with pytest.raises(errors.UsageError, match="holds 1.jpg"):
        annotate.name_files(paths, Path("a/../b"))


def test_each_digit_is_classified(tmp_path):
    """By a network that only measures the amount of ink."""

    def predict(images):
        share = tf.reduce_mean(tf.cast(images, tf.float32), [1, 2, 3]) / 255
        return tf.one_hot(tf.where(share > 0.15, 8, 1), 10) * 3

    page = np.full((100, 200), 255, np.uint8)
    page[20:80, 40:48] = 0
    page[20:80, 110:140] = 0
    for name in ("a.png", "b.png"):
        Image.fromarray(page).save(tmp_path / name)
    Image.new("L", (50, 50), 200).save(tmp_path / "empty.png")
    paths = [tmp_path / name for name in ("a.png", "empty.png", "b.png")]
    first, empty, last = (reading.read(predict, path) for path in paths)
    assert [(r.row, r.column, r.digit) for r in first.readings] == [
        *((1, 1, 1), (1, 2, 8))
    ]
    assert first.readings == last.readings and empty.readings == []
    assert first.readings[0].box == (40, 20, 8, 60)
    assert first.readings[0].probability == pytest.approx(np.e**3 / (np.e**3 + 9))
    assert first.readings[0].runner_up != 1


@pytest.mark.parametrize("light, warned", [(1, False), (0.4, False), (0.1, True)])
def test_a_page_that_is_half_in_the_dark_is_warned_of(tmp_path, light, warned):
    page = make_page.draw(np.zeros([1, 28, 28, 1], np.uint8), 0).picture.copy()
    for x in range(100, 1100, 200):
        page[200:300, x : x + 12] = 20
    page[:, 600:] = page[:, 600:] * light
    path = tmp_path / "page.png"
    Image.fromarray(page).save(path)
    found = reading.read(lambda images: tf.one_hot([1] * len(images), 10) * 9, path)
    said = "nearly black, where no ink can be seen; photograph" in found.warning
    assert said == warned


def test_a_slate_on_a_light_table_is_not_warned_of():
    page = np.full((300, 400), 220, np.uint8)
    page[20:-20, 20:-20] = 30
    assert paper.dark_share(page) > 0.5
    for x in range(60, 340, 40):
        page[100:200, x : x + 8] = 200
    assert paper.dark_share(page) == 0


FLAGS = """
import eval as program
from absl.flags import FLAGS
program.define_flags()
print(*FLAGS["ink"].parser.enum_values)
print(*FLAGS["rotate"].parser.enum_values)
print(FLAGS["reject"].value)
print(FLAGS["readings"].validators[0].message)
"""


def test_flags_and_modules_agree():
    # In another process: flags cannot be undefined, and train.py has the same names.
    done = programs.run(["-c", FLAGS])
    assert done.returncode == 0, done.stderr
    inks, turns, reject, message = done.stdout.splitlines()
    assert inks.split() == list(paper.INKS)
    assert turns.split() == [*map(str, orientation.TURNS), "auto"]
    assert float(reject) == reading.REJECT
    assert ".csv" in message and ".json" in message


# --- From the pixels of a page to its digits, by a trained network ---


@pytest.fixture(scope="module")
def run_dir(mnist, tmp_path_factory):
    """A network after a short epoch of MNIST."""
    folder = tmp_path_factory.mktemp("reader") / "run"
    done = command(
        *("train.py", "--flagfile=flags/three_passes.flags", "--epochs=1"),
        *("--epoch_images=20000", f"--data_dir={mnist.source}", f"--run_dir={folder}"),
        report=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_pages_of_mnists_digits_are_read(mnist, run_dir, tmp_path):
    """Digits of 20 to 200 pixels, on textured paper, in uneven light, with noise.

    Accuracy is compared with that on the same digits in MNIST.
    """
    predict = trained.load(run_dir).predict
    made = list(pictures.made_pages(tmp_path, mnist, range(3)))
    (total,) = counting.measure(counting.ours(predict), made).values()
    assert total.pictures == 3 and total.digits > 80
    known = scoring.score(predict, mnist.test_images, mnist.test_labels).accuracy
    assert total.right >= (known - 0.02) * total.digits
    assert total.besides <= 0.02 * total.digits


def test_the_command_reads_photos(run_dir, tmp_path):
    made = command("-m", "photos.make_page", f"--pages_dir={tmp_path}/pages")
    assert made.returncode == 0, made.stderr
    Image.new("L", (300, 200), 230).save(tmp_path / "empty.png")
    done = command(
        *("eval.py", f"--run_dir={run_dir}", f"--images={tmp_path}/pages"),
        *(tmp_path / "empty.png", f"--readings={tmp_path}/readings.csv"),
        *(f"--annotated_dir={tmp_path}/read", "--reject=0"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{tmp_path}/empty.png: no digits found" in done.stdout
    assert {p.name for p in (tmp_path / "read").iterdir()} == {
        *("page-0.png", "empty.png")
    }
    key = (tmp_path / "pages" / make_page.KEY).read_text("utf-8").splitlines()
    rows = (tmp_path / "readings.csv").read_text("utf-8").splitlines()
    answers = [",".join(row.split(",")[:4]) for row in rows]
    assert answers[0] == key[0]
    assert len(set(key) - set(answers)) <= 0.15 * len(key)


def test_an_empty_page_is_not_an_error(run_dir, tmp_path):
    path = tmp_path / "empty.png"
    Image.new("L", (300, 200), 230).save(path)
    done = command("eval.py", f"--run_dir={run_dir}", "--images", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path}: no digits found\n"


def test_a_file_that_is_not_a_photo_is_named_and_the_rest_read(run_dir, tmp_path):
    page = np.full((100, 100), 255, np.uint8)
    page[20:80, 40:48] = 0
    for name in ("a.png", "c.png"):
        Image.fromarray(page).save(tmp_path / name)
    (tmp_path / "b.png").write_text("not a photo at all\n")
    done = command(
        *("eval.py", f"--run_dir={run_dir}", f"--images={tmp_path}/*.png"),
        *(f"--readings={tmp_path}/readings.json", f"--annotated_dir={tmp_path}/read"),
    )
    assert done.returncode == decode.PhotoError.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert f"{tmp_path}/b.png: not a photo" in done.stderr
    read = json.loads((tmp_path / "readings.json").read_text("utf-8"))
    assert [Path(page["file"]).name for page in read] == ["a.png", "c.png"]
    assert {p.name for p in (tmp_path / "read").iterdir()} == {"a.png", "c.png"}
    assert done.stdout.count(".png") == 4


def test_if_no_photo_can_be_read_nothing_is_written(run_dir, tmp_path):
    (tmp_path / "b.png").write_text("not a photo at all\n")
    done = command(
        *("eval.py", f"--run_dir={run_dir}", f"--images={tmp_path}/b.png"),
        *(f"--readings={tmp_path}/readings.json", f"--annotated_dir={tmp_path}/read"),
    )
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"b.png"}
