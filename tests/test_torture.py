# SPDX-License-Identifier: Apache-2.0
"""A small part of `make torture`: a few kills, every seventh byte of a checkpoint.

It runs in a process of its own, since this one has made tensors and cannot be forked.
"""

import json

import pytest

from tests.helpers import command
from tests.torture import children, table


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """{fault: entry of results.json}"""
    folder = tmp_path_factory.mktemp("results")
    done = command(
        *("-m", "tests.torture", "--only=kills,signals,bytes,disks", "--kills=6"),
        *("--signals=1", "--disks=1", "--every=7", f"--results={folder}"),
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "| fault" in (folder / "results.md").read_text()
    rows = json.loads((folder / "results.json").read_text())["rows"]
    return {row["fault"]: row for row in rows}


@pytest.mark.parametrize(
    "fault, least",
    [
        ("kill -9 while training, resumed", 5),
        ("SIGTERM, Ctrl-C while training, resumed", 2),
        ("SIGTERM, Ctrl-C to a worker that waits", 2),
        ("a flipped bit, in each byte", 5000),
        ("a file cut at each length", 5000),
        ("vanished directory, resumed", 1),
        ("clock jumps, resumed", 2),
    ],
)
def test_faults_are_survived(results, fault, least):
    assert results[fault]["injected"] >= least
    assert results[fault]["failures"] == []


def test_a_disk_that_cannot_be_mounted_is_reported_as_not_run(results):
    row = results["disk full while training, resumed"]
    assert row["not_run"] or row["injected"] == 1


def test_the_table_shows_what_was_not_survived(tmp_path):
    good, bad, none = table.Row("a"), table.Row("b"), table.Row("c", "no mount")
    good.add("1", None)
    bad.add("1", None)
    bad.add("2", "the final state differs")
    assert good.cells() == ("a", 1, 1, 0)
    assert bad.cells() == ("b", 2, 1, "?")
    assert none.cells() == ("c", "not run", "no mount", "")
    for row in (good, bad, none):
        again = table.Row.from_json(json.loads(json.dumps(row.to_json())))
        assert vars(again) == vars(row)
    table.write([good, bad, none], tmp_path, {"cores": 2})
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["cores"] == 2
    assert stored["rows"][1]["failures"] == [["2", "the final state differs"]]


CHILDREN = """
import json, os, signal, sys
from tests.torture import children

def fail():
    raise ValueError("no")

def speak():
    print("out")
    print("err", file=sys.stderr)
    return [1]

die = lambda: os.kill(os.getpid(), signal.SIGKILL)
for each in (speak, fail, die, lambda: sys.exit(3)):
    print(json.dumps(children.run(each)))
"""


def test_children_report_how_they_ended():
    done = command("-c", CHILDREN, check=True)
    spoke, failed, died, left = (
        children.Ended(*json.loads(line)) for line in done.stdout.splitlines()
    )
    assert spoke == (0, "out\n", "err\n", [1])
    assert failed.code == 70 and "ValueError: no" in failed.err
    assert (died.code, died.value) == (-9, None)
    assert (left.code, left.value) == (3, None)
