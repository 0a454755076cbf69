# SPDX-License-Identifier: Apache-2.0
"""Every reader of outside bytes accepts a file, or refuses it in one line.

The inputs are the same few each time; LETIN_EXAMPLES=2000 in the environment draws that
many new ones per test (see docs/reliability.md). `make fuzz` is guided by coverage.
"""

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import time
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import Config
from data import kaggle
from system import untrusted
from tests.fuzz import readers
from tests.fuzz.seeds import SEEDS
from tests.helpers import ROOT
from training import runs

EXAMPLES = int(os.environ.get("LETIN_EXAMPLES", "0"))

some = settings(
    max_examples=EXAMPLES or 40,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

# Bytes that are special to some reader.
TOKENS = (
    *(b"", b"\0", b"\xff", b"\n", b"\r", b",", b'"', b"{", b"[" * 3000, b"9" * 5000),
    *(b"-1", b"NaN", b"Infinity", b"1e999", b'"\\ud800"', b"\xed\xa0\x80", b"null"),
    *(b"\x1b[2J", b"\xe2\x80\xa8", b"0" * 40 + b"5", b"\xff\xff\xff\x7f"),
)


@st.composite
def damaged(draw, seeds):
    """A valid file with bytes changed, inserted or removed."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from((0, 1, 2, 4, 16, len(content))))
        content[start : start + length] = draw(
            st.sampled_from(TOKENS) | st.binary(max_size=4)
        )
    return bytes(content)


def check_all(name, contents):
    """Reads files that Hypothesis draws."""

    @some
    @given(contents)
    def check(content):
        readers.check(name, content)

    check()


def test_every_reader_has_seeds():
    assert list(readers.READERS) == list(SEEDS)


@pytest.mark.parametrize("name", SEEDS)
def test_valid_files_are_accepted(name):
    taken = [readers.check(name, seed) for seed in SEEDS[name]()]
    assert taken[0]


@pytest.mark.parametrize("name", SEEDS)
def test_arbitrary_bytes_are_accepted_or_refused(name):
    check_all(name, st.binary(max_size=200))


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files_are_accepted_or_refused(name):
    check_all(name, damaged(SEEDS[name]()))


@pytest.mark.parametrize("name", SEEDS)
def test_truncated_files_are_accepted_or_refused(name):
    for seed in SEEDS[name]():
        for length in {*range(0, len(seed), max(1, len(seed) // 25)), len(seed) - 1}:
            readers.check(name, seed[: max(length, 0)])


# --- Findings of the fuzzer, and what one would try first ---


def refused(name, content):
    assert not readers.check(name, content)


@pytest.mark.parametrize("name", ["run", "manifest", "result"])
@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"finished": NaN}',
        b'{"config": {"epochs": 1e999}}',
        b'{"config": -Infinity}',
        b'{"test": {"binary_accuracy": ' + b"9" * 400 + b'}, "finished": true}',
        b"9" * 5000,
        b'"\\udc80"',
        b'{"format": 1, "format": 1}',
        '{"format": 1}'.encode("utf-16"),
        b" " * (untrusted.JSON_BYTES + 1),
        b'["test"]',
        b'{"test": {"binary_accuracy": 1.99}, "finished": true}',  # found
        b'"test"',
    ],
    ids=range(14),
)
def test_invalid_json_is_refused(name, content):
    refused(name, content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tf_config", b'{"cluster": {}, "task": {"type": "\\u007f"}}'),  # found
        ("tf_config", b'{"cluster": {"worker": ["\\u007f"]}, "task": {}}'),
        ("worker", b'{"refused": "\\u001b[2J"}\n'),
    ],
)
def test_messages_from_strangers_do_not_move_the_cursor(name, content):
    refused(name, content)


@pytest.mark.parametrize(
    "greeting",
    [
        b'{"number":1,"workers":[""]}\n',  # found
        b'{"workers":[],"number":1}\n',
        b'{"number":-1,"workers":["a:1"]}\n',
    ],
)
def test_a_greeting_without_addresses_or_a_number_is_refused(greeting):
    refused("worker", greeting)


@pytest.mark.parametrize(
    "content",
    [
        b"epoch,step,seconds\n" + b'"' + b"9" * 200_000,
        b"epoch,step,seconds\n0,1\n",
        b"epoch,step,seconds\n0,1,2,3\n",
        b"epoch,step,seconds\n0,nan,1\n",
        b"epoch,step,seconds\n0,-1,1\n",
        b"epoch,step,seconds,step\n0,1,1,1\n",
        b"epoch,seconds\n0,1\n",
        b"epoch,step,seconds\n0,\0,1\n",
        b"\xff\n",
    ],
    ids=range(9),
)
def test_damaged_metrics(content):
    refused("metrics", content)


def test_a_cell_of_many_zeros_is_handled():
    header = ",".join(kaggle.PIXELS)
    zeros = "0" * 40 + "5" + ",0" * 783
    readers.check("csv", f"9{header}\n{zeros}\n".encode())


def npz(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def npy(shape, values=b"", dtype="<f4"):
    head = {"descr": dtype, "fortran_order": False, "shape": shape}
    text = f"{head!r}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + values


def archive(labels, probabilities, compression=zipfile.ZIP_STORED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as file:
        file.writestr("labels.npy", labels)
        file.writestr("probabilities.npy", probabilities)
    return content.getvalue()


GOOD = np.full((2, 10), 0.1, np.float32)
LABELS = np.zeros(2, np.uint8)


@pytest.mark.parametrize(
    "content",
    [
        npz(labels=LABELS),
        npz(labels=LABELS, probabilities=GOOD, more=GOOD),
        npz(labels=LABELS + 10, probabilities=GOOD),
        npz(labels=LABELS, probabilities=GOOD * np.nan),
        npz(labels=LABELS[:0], probabilities=GOOD[:0]),
        npz(labels=LABELS, probabilities=GOOD.astype(">f4")[:, ::-1]),
        npz(labels=LABELS, probabilities=GOOD.T.copy().T),
        archive(npy((2,), b"\0\0", "|u1"), npy((10**12, 10))),
        archive(npy((2,), b"\0\0", "|u1"), npy((-1, 10))),
        archive(npy((2,), b"\0\0", "|u1"), npy((2, 10), dtype="|O")),
        archive(npy((2,), b"\0\0", "|u1"), npy("(" * 5000)),
        archive(b"\x93NUMPY\x01\0\2\0((", npy((2, 10))),  # a header cut off
        archive(bytes(50 << 20), bytes(50 << 20), zipfile.ZIP_DEFLATED),
        archive(bytes(1 << 20), bytes(1 << 20), zipfile.ZIP_LZMA),
        npy((2, 10), bytes(80)),
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",  # a pickle
    ],
    ids=range(16),
)
def test_archives_that_are_not_predictions_are_refused(content):
    refused("predictions", content)


def png(width, height):
    """A black picture with one bit per pixel."""
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    header = struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + rows, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


BOUNDED = """
import resource, sys
from tests.fuzz import readers, seeds
name = sys.argv[1]
readers.check(name, seeds.SEEDS[name]()[0])  # loads everything
content = sys.stdin.buffer.read()
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
print(readers.check(name, content))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("idx", struct.pack(">4BI", 0, 0, 8, 1, 2**31 - 1) + bytes(1000)),
        ("gzip", b"1" + struct.pack(">4BI", 0, 0, 8, 1, 2**31 - 1) + bytes(1000)),
        ("csv", f"\x16{','.join(kaggle.PIXELS)}\n".encode() + b"\n" * 4_000_000),
        ("csv", f"\x16{','.join(kaggle.PIXELS)}\n".encode() + b"1\n" * 2_000_000),
        ("photo", png(9_000, 9_000)),
    ],
    ids=["idx", "gzip", "blank", "csv", "photo"],
)
def test_a_large_announced_size_takes_no_memory(name, content):
    """In a process that may allocate another 64 MB."""
    command = [sys.executable, "-c", BOUNDED, name]
    done = subprocess.run(
        command, cwd=ROOT, input=content, capture_output=True, check=False
    )
    assert done.stdout == b"False\n", done.stderr.decode()


@pytest.mark.parametrize(
    "packed",
    [
        b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * 30_000_000,  # an endless file name
        gzip.compress(b"", mtime=0) * 500_000,
        gzip.compress(SEEDS["idx"]()[1]) + bytes(30_000_000),
    ],
    ids=["name", "members", "zeros"],
)
def test_gzip_files_that_python_reads_byte_by_byte(packed):
    start = time.process_time()
    refused("gzip", b"0" + packed)
    assert time.process_time() - start < 1


# --- Settings in run.json ---


def read_settings(folder, run):
    return runs.settings_of(folder, run, Config)


@pytest.mark.parametrize("name", sorted(Config().deciding()))
def test_a_setting_of_the_wrong_type_is_named(tmp_path, name):
    run = json.loads(SEEDS["run"]()[0])
    for value in ([1.5], {}, b""):
        run["config"][name] = value
        with pytest.raises(runs.RunError, match=f"{name!r} is of the wrong type"):
            read_settings(tmp_path, run)


@pytest.mark.parametrize(
    "name, value", [("loss", "none"), ("epochs", 0), ("epochs", -7)]
)
def test_an_impossible_setting_is_named(tmp_path, name, value):
    """The epochs were found by fuzzing."""
    run = json.loads(SEEDS["run"]()[0])
    run["config"][name] = value
    with pytest.raises(runs.RunError, match=f"{name!r} has an impossible value"):
        read_settings(tmp_path, run)
