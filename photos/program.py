# SPDX-License-Identifier: Apache-2.0
"""eval.py --images: its flags, and what it does."""

import warnings
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from absl import flags

from data import decode
from evaluation import outputs
from system import cli, console, device

MAX_AT_ONCE = 4  # photos; one of the largest takes up to 600 MB while it is read
FLAGS = ("ink", "rotate", "reject", "readings", "annotated_dir")  # besides --images


def define_flags() -> None:
    """Defines the flags."""
    cli.define_paths(
        "images",
        "Photos of digits to read: files, folders or patterns such as '*.jpg'; PNG,"
        " JPEG, WebP, BMP, TIFF or HEIC. Arguments that are not flags are photos, too,"
        " but with --ensemble.",
    )
    flags.DEFINE_enum(
        "ink",
        "auto",
        ["auto", "dark", "light"],
        "Whether the digits of --images are darker or lighter than their paper.",
    )
    flags.DEFINE_enum(
        "rotate",
        "0",
        ["0", "90", "180", "270", "auto"],
        "Degrees to turn the --images to the left before they are read; auto: as they"
        " are read best.",
    )
    flags.DEFINE_float(
        "reject",
        0.5,
        "Leave out what is read with a lower probability: where there is no digit, the"
        " network is sure of nothing.",
        lower_bound=0,
        upper_bound=1,
    )
    cli.define_path("readings", None, "File for the digits read, .csv or .json.")
    flags.register_validator(
        "readings",
        lambda name: name is None or name.lower().endswith((".csv", ".json")),
        "expected a file name that ends in .csv or .json",
    )
    cli.define_path(
        "annotated_dir", None, "Folder for copies of --images with the digits read."
    )


def read_all(
    load: Callable[[], Any],
    photos: Sequence[str],
    *,
    ink: str,
    rotate: str,
    reject: float,
    readings: str | None,
    annotated_dir: str | None,
) -> None:
    """Reads the digits of photos, prints them, and writes them if it is told where.

    There is a thread per core, up to `MAX_AT_ONCE`: almost all of the work is done in
    OpenCV, Pillow, numpy and TensorFlow, which need no interpreter. Readings and
    messages come in the order of the photos all the same.

    Args:
      load: loads the network: a `TrainedRun` or an `Ensemble`.
      photos: files, folders or patterns.
      ink, rotate, reject, readings, annotated_dir: the flags of these names.

    Raises:
      UserError: there are no such photos, or some, at the end, could not be read.
    """
    from photos import annotate, reading  # loads matplotlib

    paths = decode.expand([*photos])
    folder = annotated_dir
    names = annotate.name_files(paths, Path(folder)) if folder else []
    run = load()
    turn = None if rotate == "auto" else int(rotate)
    pages: list[reading.Page] = []

    def read(path: Path) -> reading.Page:
        kind: dict[str, Any] = {"turn": turn, "reject": reject}
        return reading.read(run.predict, path, ink, run.classes, **kind)

    def keep(page: futures.Future[reading.Page]) -> None:
        pages.append(page.result())
        if warning := pages[-1].warning:
            console.warn(warning)

    written = outputs.Outputs()
    pool = futures.ThreadPoolExecutor(min(device.cores(), MAX_AT_ONCE))
    # Around all threads, as what `decode.read` ignores is the same for all of them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for page in [pool.submit(read, path) for path in paths]:
                written.attempt(keep, page)
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the others
    if pages:
        print(reading.show(pages))
    to_draw = {page.path: page for page in pages}
    for path, name in zip(paths, names):
        if path in to_draw and written.attempt(annotate.write, name, to_draw[path]):
            print(name)
    if pages and readings and written.attempt(reading.write, Path(readings), pages):
        print(readings)
    written.report()
