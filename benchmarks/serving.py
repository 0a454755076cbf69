# SPDX-License-Identifier: Apache-2.0
"""Speed of a network in use, on one core: `reader.predict`, and each exported file.

The network of lenet.flags has random weights, as speed does not depend on them; the
other one comes with the project. Each peer writes its own file, reads it back, and has
one thread. All take turns: one digit, again and again, then many, in batches. The goal
is 1 ms for one digit, and 0.1 s for 10,000 with the network of lenet.flags.

We take processor time: with one thread, it is the elapsed time of a quiet machine, and
a library that uses a second core after all gains nothing.

And ten drawn pages, as large as photographs of twelve megapixels, by eval.py --images
on all cores, from the command to its end. The goal is 8 s on two cores.
"""

import contextlib
import dataclasses
import functools
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ours, peers, results

# Networks, and the number of digits that they read in a few seconds.
LENET, ROBUST = "lenet.flags", "pretrained/robust"
DIGITS = {LENET: 10_000, ROBUST: 1_000}

READER = "reader.predict"
FORMATS = ("saved_model", "float", "int8", "onnx")  # of evaluation.formats
CALIBRATION_DIGITS = 100
BATCH_SIZE = 1000
WARM_UP_CALLS = 20
CALLS = 200

# Function from a number of digits to {"milliseconds" of one, "seconds" of all}.
Answer = Callable[[int], dict[str, float]]


def served(*, network: str, form: str) -> Answer:
    """Times a network, a key of `DIGITS`, as a `form`: `READER`, or one of `FORMATS`.

    Raises Missing if a converter is not installed, or this network cannot be exported.
    """
    from system import device  # isort: skip  (first: it loads TensorFlow)
    from evaluation.reader import Reader

    device.set_threads(1)
    run = _run(network)
    if form == READER:
        return timer(Reader(run).predict)
    with tempfile.TemporaryDirectory() as folder:
        return timer(_read_back(run.predict.network, form, Path(folder)))


def _run(network: str) -> Any:  # an evaluation.trained.TrainedRun
    import models
    import pretrained
    from evaluation import scoring, trained
    from training import machine

    if network == ROBUST:
        return trained.load(pretrained.ROBUST)
    config = ours.train_config(threads=1)
    config = dataclasses.replace(config, **machine.choose(config))
    lenet = models.build(**vars(config))
    predict = scoring.Predict(lenet)
    return trained.TrainedRun(Path(), {}, config, lenet, predict, step=0)


def _read_back(network: Any, form: str, folder: Path) -> Callable[[np.ndarray], Any]:
    """Exports a network in a format, without the checks of an export, and loads it."""
    from evaluation import chain, formats
    from system import device

    if packages := formats.missing(form):
        raise peers.Missing(f"no module named {' and '.join(packages)}")
    path = folder / formats.FORMATS[form].file
    calibration = ours.noise(CALIBRATION_DIGITS)[0][..., 0]
    try:
        with device.quiet():
            formats.FORMATS[form].write(path, formats.Exported(network), calibration)
            return _onnx(path) if form == "onnx" else formats.FORMATS[form].read(path)
    except chain.ExportError as error:
        raise peers.Missing(str(error)) from None


def _onnx(path: Path) -> Callable[[np.ndarray], Any]:
    """An ONNX file on one thread; by default it would take all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options)
    return lambda images: session.run(["class"], {"images": images})


def timer(read: Callable[[np.ndarray], Any]) -> Answer:
    """Warms up a function of images, uint8 [N, 28, 28]; returns one that times it."""

    def answer(count: int) -> dict[str, float]:
        images = np.resize(ours.noise(BATCH_SIZE)[0][..., 0], (count, 28, 28))
        seconds = []
        for image in itertools.islice(itertools.cycle(images), WARM_UP_CALLS + CALLS):
            began = time.process_time()
            read(image[np.newaxis])
            seconds.append(time.process_time() - began)
        read(images[:BATCH_SIZE])  # TensorFlow Lite prepares for each new size
        began = time.process_time()
        for start in range(0, count, BATCH_SIZE):
            read(images[start : start + BATCH_SIZE])
        return {
            "milliseconds": 1000 * statistics.median(seconds[WARM_UP_CALLS:]),
            "seconds": time.process_time() - began,
        }

    return answer


PHOTOS, PHOTO_PIXELS = 10, 12_000_000


def draw_photos(folder: Path, count: int = PHOTOS, pixels: int = PHOTO_PIXELS) -> None:
    """Draws pages of test digits as JPEG files of so many pixels each."""
    import cv2

    import data
    from photos import make_page

    images = data.load("mnist").test_images
    for seed in range(count):
        start = seed * len(images) // count
        page = make_page.draw(images[start:], seed).picture
        scale = (pixels / page.size) ** 0.5
        photo = cv2.resize(page, None, fx=scale, fy=scale)
        if not cv2.imwrite(str(folder / f"page-{seed}.jpg"), photo):
            raise peers.BenchmarkError(f"OpenCV could not write a JPEG to {folder}")


def photo_seconds(folder: Path) -> float:
    """Seconds of `eval.py --images` from the command to its end."""
    command = [sys.executable, "eval.py", f"--images={folder}"]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=peers.PROJECT, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise peers.BenchmarkError(f"eval.py did not read its photos: {reason}")
    return time.perf_counter() - began


PEERS = {form: functools.partial(served, form=form) for form in (READER, *FORMATS)}


def measure(
    rounds: int,
    digits: Mapping[str, int] = DIGITS,
    module: str = "benchmarks.serving",
    photos: int = PHOTOS,
) -> dict[str, Any]:
    """Measures each network, read in each way, in turns, and then the photos.

    Args:
      rounds: number of measurements.
      digits: {network: number of digits}.
      module: module of the peers.
      photos: number of photos.

    Returns:
      calls: number of calls of which one digit's time is the median.
      networks: {name: {"digits", "read_by": {`READER` or format: {"milliseconds" of one
        digit, "seconds" of all} of each round, or {"missing": the reason}}}}.
      photos: number of photos.
      photo_seconds: seconds for all of them in each round.
    """
    with tempfile.TemporaryDirectory() as folder:
        draw_photos(Path(folder), photos)
        photo_rounds = [photo_seconds(Path(folder)) for _ in range(rounds)]
    return {
        "calls": CALLS,
        "networks": {
            name: {"digits": count, "read_by": _measure(rounds, name, count, module)}
            for name, count in digits.items()
        },
        "photos": photos,
        "photo_seconds": photo_rounds,
    }


def _measure(rounds: int, network: str, digits: int, module: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        running = {}
        for form in (READER, *FORMATS):
            try:
                peer = peers.Peer(module, form, {"network": network})
            except peers.Missing as missing:
                print(f"{network}, {form} is missing: {missing}")
                found[form] = {"missing": str(missing)}
            else:
                running[form] = stack.enter_context(peer)
                found[form] = {"milliseconds": [], "seconds": []}
        for number in range(1, rounds + 1):
            for form, peer in running.items():
                for name, figure in peer.ask(digits).items():
                    found[form][name].append(figure)
            shown = [f"{f} {found[f]['milliseconds'][-1]:.2f}" for f in running]
            print(f"round {number} of {rounds}, {network}, ms: {', '.join(shown)}")
    return found


def markdown(figures: Mapping[str, Any]) -> str:
    """Section with the table of medians and ranges."""
    rows = []
    for name, network in figures["networks"].items():
        for form, of_form in network["read_by"].items():
            if "missing" in of_form:
                times = [f"missing: {of_form['missing']}", *["–"] * 4]
            else:
                times = [
                    *_spread(of_form["milliseconds"], "ms"),
                    f"{network['digits']:,}",
                    *_spread(of_form["seconds"], "s"),
                ]
            rows.append([name, form, *times])
    headers = ["network", "read by", "one digit", "range"]
    headers += ["digits", "all of them", "range"]
    return "\n\n".join(
        [
            "## Serving",
            results.table(rows, headers, texts=2),
            f"One core, processor time. One digit: the median of {figures['calls']}"
            f" calls after a warm-up; all of them: {BATCH_SIZE:,} at a time. Medians"
            " and ranges of the rounds.",
            f"`eval.py --images` of {figures['photos']} photographs of twelve"
            f" megapixels, on all cores, from the command to its end:"
            f" {' ('.join(_spread(figures['photo_seconds'], 's'))}).",
        ]
    )


def _spread(values: list[float], unit: str) -> list[str]:
    median = f"{statistics.median(values):.2f} {unit}"
    return [median, f"{min(values):.2f}–{max(values):.2f} {unit}"]
