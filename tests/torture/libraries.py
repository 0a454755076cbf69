# SPDX-License-Identifier: Apache-2.0
"""Compiled operations are damaged on disk; they must be compiled again."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.torture import children
from tests.torture.kills import Report
from tests.torture.table import Row


def damaged(folder: Path, report: Report, every: int = 1) -> Row:
    """Damages the library in several ways; it must be compiled again, not loaded.

    Args:
      folder: folder to work in.
      report: takes the name of each fault, and what went wrong.
      every: 1 for all faults, 2 for every other one, …
    """
    from native import ops

    row = Row("compiled operations damaged, built again")
    if reason := children.run(ops.missing).value:
        row.reason = reason
        return row
    build = folder / "native-build"
    good = children.run(lambda: _load(build))
    assert good.code == 0, good.err
    (library,) = build.glob("ops-*.so")
    kept = folder / "native-kept"
    shutil.copytree(build, kept)
    for name, content in list(_damages(library.read_bytes()))[::every]:
        shutil.rmtree(build)
        shutil.copytree(kept, build)
        library.write_bytes(content)
        ended = children.run(lambda: _load(build))
        wrong = None
        if ended.code or ended.value != good.value:
            wrong = f"exit code {ended.code}: {ended.err[-300:]}"
        elif library.exists() and library.read_bytes() == content:
            wrong = "the damaged library is still there"
        elif left := [p.name for p in build.iterdir() if p.is_dir()]:
            wrong = f"left behind: {left}"
        row.add(name, wrong)
        report(f"the library {name}", wrong)
    return row


def _damages(good: bytes) -> Iterator[tuple[str, bytes]]:
    yield "emptied", b""
    yield "cut in half", good[: len(good) // 2]
    yield "cut by a byte", good[:-1]
    yield "with one more byte", good + b"\0"
    yield "all zeros", bytes(len(good))
    for offset in (16, len(good) // 3, len(good) // 2, len(good) - 1):
        flipped = bytes([good[offset] ^ 16])
        yield f"flipped at {offset}", good[:offset] + flipped + good[offset + 1 :]


def _load(build: Path) -> list[float]:
    """Loads the operations from a folder and runs one."""
    import tensorflow as tf

    from native import compile, ops

    compile.BUILD = build
    y = ops.dropout(tf.ones([4, 4]), 0.5, seed=tf.constant([1, 2]))
    return y.numpy().reshape(-1).tolist()
