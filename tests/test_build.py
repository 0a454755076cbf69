# SPDX-License-Identifier: Apache-2.0
"""Tests of the program augment/build.py."""

import cv2
import pytest

from augment import build
from augment.plan import plan
from tests.helpers import command
from tests.test_cli import drive
from tests.test_plan import DEFORMED


def run(tmp_path, *arguments, start=("-m", "augment.build")):
    augmented_dir = f"--augmented_dir={tmp_path / 'augmented'}"
    return command(*start, "--dataset=digits", augmented_dir, *arguments)


def test_a_preview_that_cannot_be_written_is_refused_before_the_set(tmp_path):
    done = run(tmp_path, f"--preview={tmp_path / 'missing' / 'sheet.png'}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "sheet.png: No such file" in done.stderr
    assert not list(tmp_path.iterdir())


def test_program_builds_a_set_and_a_preview(tmp_path):
    sheet = tmp_path / "sheet.png"
    settings = ["--shift_directions=up", "--flip_labels="]
    done = run(tmp_path, f"--preview={sheet}", *settings)
    assert done.returncode == 0, done.stderr
    assert "shift(-1,+0)" in done.stdout and "flip" not in done.stdout
    assert sheet.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_program_previews_online_transforms_without_a_warning(tmp_path):
    sheet = tmp_path / "sheet.png"
    plain = ["--shift_directions=", "--flip_codes="]
    done = run(tmp_path, *plain, "--rotation=20", "--zoom=0.2", f"--preview={sheet}")
    assert (done.returncode, done.stderr) == (0, "")
    height = cv2.imread(str(sheet)).shape[0]
    assert height // 62 == 6  # the originals, two alone, three together


BAD_FLAGS = [
    *("--shift_directions=upp", "--shift_pixels=0", "--flip_codes=2", "--shft=1"),
    *("--rotation=181", "--zoom=nan", "--shear=x", "--elastic_alpha=34"),
    *("--workers=-1", "--dask_scheduler=x", "--multiply=0"),
    "--deform=elastic --multiply=2 --flip_codes=0",
]


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    """{bad flags: (exit code, standard output, standard error)}"""
    folder = tmp_path_factory.mktemp("sets")
    start = ["--dataset=digits", f"--augmented_dir={folder}"]
    cases = [("program", [*start, *bad.split()]) for bad in BAD_FLAGS]
    found = dict(zip(BAD_FLAGS, drive("augment.build", cases), strict=True))
    assert not list(folder.iterdir())
    return found


@pytest.mark.parametrize("bad", BAD_FLAGS)
def test_a_bad_flag_gives_one_line(attempts, bad):
    code, out, error = attempts[bad]
    assert (code, out) == (2, "")
    assert len(error.splitlines()) == 1
    assert bad.rpartition("--")[2].partition("=")[0] in error


def test_an_unknown_class_gives_one_line(tmp_path):
    done = run(tmp_path, "--dataset=digits", "--flip_labels=x")
    assert done.returncode == 1
    assert "flip_labels: 'x' is no class" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_copies_share_a_line_of_the_table(dataset):
    rows = build.table(plan(dataset.train_labels, DEFORMED))
    assert [size for _, size in rows] == [40, 5 * 40, 6 * 40]


def test_a_full_disk_gives_one_line_and_leaves_nothing(tmp_path):
    # A limit on the size of files fails in write(), as a full disk does.
    code = (
        "import resource, runpy; "
        "limits = resource.getrlimit(resource.RLIMIT_FSIZE); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9999, limits[1]))\n"
        "try: runpy.run_module('augment.build', run_name='__main__', alter_sys=True)\n"
        # Coverage, where it watches this process, writes a larger file at its end.
        "finally: resource.setrlimit(resource.RLIMIT_FSIZE, limits)"
    )
    done = run(tmp_path, start=("-c", code))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert [path.name for path in (tmp_path / "augmented").iterdir()] == [".lock"]


def test_building_needs_no_tensorflow():
    code = "import sys, augment.build; sys.exit('tensorflow' in sys.modules)"
    command("-c", code, check=True)
