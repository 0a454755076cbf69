# SPDX-License-Identifier: Apache-2.0
"""Growth of our loop's time and memory: with batch, maps, training set and steps.

    python -m benchmarks.growth

The network is that of lenet.flags, trained by Adam at a constant rate, on noise: the
speed does not depend on what the images show. Each measurement has a process of its
own, so that its memory is its own, and they come in turns, so that a slow minute of
the machine falls on all of them. Tracing and the first steps are not timed.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tabulate import tabulate

import cli
from benchmarks import process

FLAGS = flags.FLAGS

# What all are compared with: the training set is MNIST's size.
BATCH_SIZE, WIDTH, SET_SIZE = 128, 1, 60_000

# What grows in each study, all else staying as above.
STUDIES: dict[str, Sequence[int]] = {
    "batch_size": (32, 64, 128, 256, 512, 1024, 2048),
    "width": (1, 2, 4),
    "set_size": (60_000, 360_000, 1_500_000),
    "steps": (1, 2, 4),  # times as many
}

OPTIONS = ("batch_size", "width", "set_size", "steps")  # of a measurement
WARM_UP_STEPS = 20
MB = 1e6


def settings(*arguments: str) -> dict[str, Any]:
    """The value of each flag of a run, as train.py has them from its command line.

    Changes the flags of this process; no flag of its program may be named like one of
    train.py's.
    """
    import models
    import train
    from training import optimizers

    train.define_flags()
    FLAGS([train.__name__, *arguments])
    run_flags = FLAGS.get_key_flags_for_module(train.__name__)
    values = {flag.name: flag.value for flag in run_flags}
    return values | models.options(values) | optimizers.options(values)


def loop(
    overrides: Mapping[str, Any], images: np.ndarray, labels: np.ndarray
) -> Callable[[int], float]:
    """train.py's loop over some images.

    Args:
      overrides: flags, by name, of the recipe of the speed measurements.
      images: uint8 [N, 28, 28, 1].
      labels: uint8 [N].

    Returns:
      timer(count): takes the next `count` steps in one call of the graph, and returns
      their seconds. It raises ProcessError if a loss is not finite.
    """
    import device  # isort: skip  (first: it loads TensorFlow)
    import tensorflow as tf

    import train

    recipe: dict[str, Any] = {
        "schedule": "constant",
        "learning_rate": 1e-3,
        "weight_decay": 0,
        "weight_average": 0,
        **overrides,
    }
    config = settings(
        f"--flagfile={process.PROJECT / 'lenet.flags'}",
        *(f"--{name}={value}" for name, value in recipe.items()),
    )
    device.set_threads(config["threads"])
    state = train.build_state(config)
    epoch_steps = -(-len(labels) // config["batch_size"])
    train_steps = train.make_train_steps(
        state, tf.constant(images), tf.constant(labels), config, epoch_steps
    )
    step = 0

    def timer(count: int) -> float:
        nonlocal step
        began = time.perf_counter()
        done = int(train_steps(step, count, training=True).step)  # waits for it
        seconds = time.perf_counter() - began
        step += count
        if done != step:  # the loop ends early at a loss that is not finite
            raise process.ProcessError(f"training broke off at step {done} of {step}")
        return seconds

    return timer


def point(
    batch_size: int = BATCH_SIZE,
    width: int = WIDTH,
    set_size: int = SET_SIZE,
    steps: int = 1,
    threads: int = 0,
) -> dict[str, Any]:
    """One measurement, of this process.

    Args:
      batch_size: images per step.
      width: factor on the maps of the convolutions.
      set_size: images in the training set.
      steps: how many are timed.
      threads: of the CPU; 0: one per core.

    Returns:
      Seconds and images per second of the steps; bytes of the training set, bytes
      resident before it was made and after training, and the most there ever were.
    """
    import train  # noqa: F401  (now, or its memory would be taken for the set's)

    before = resident_bytes()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (set_size, 28, 28, 1), np.uint8)
    labels = rng.integers(0, 10, set_size, np.uint8)
    timer = loop(
        {"batch_size": batch_size, "width": width, "threads": threads}, images, labels
    )
    timer(WARM_UP_STEPS)
    seconds = timer(steps)
    return {
        "seconds": seconds,
        "images_per_second": steps * batch_size / seconds,
        "set_bytes": images.nbytes + labels.nbytes,
        "resident_bytes_before": before,
        "resident_bytes": resident_bytes(),
        "peak_bytes": peak_bytes(),
    }


def resident_bytes() -> int:
    """Memory that this process holds now or, where only Linux says so, held at most."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return peak_bytes()


def peak_bytes() -> int:
    """The most memory that this process ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(
    rounds: int = 3,
    images: int = 60_000,
    threads: int = 0,
    studies: Mapping[str, Sequence[int]] = STUDIES,
) -> list[dict[str, Any]]:
    """Every study, one measurement after the other, in several rounds.

    Args:
      rounds: measurements of each.
      images: that each trains on, in as many steps as their batches make.
      threads: of the CPU; 0: one per core.
      studies: what grows, and its values.

    Returns:
      One record per value: `study`, `value`, `steps`, and as lists, with one item per
      round, what `point` returns; or instead of these the reason why it `failed`.
    """
    records: list[dict[str, Any]] = [
        {"study": study, "value": value, **_options(study, value, images)}
        for study, values in studies.items()
        for value in values
    ]
    for number in range(1, rounds + 1):
        done: dict[tuple, dict[str, Any]] = {}  # studies share what they start from
        for record in records:
            key = tuple(record[name] for name in OPTIONS)
            if key not in done:
                options = dict(zip(OPTIONS, key, strict=True), threads=threads)
                done[key] = _measure(options)
                print(f"round {number} of {rounds}: {options}: {done[key]}", flush=True)
            for name, value in done[key].items():
                record.setdefault(name, []).append(value)
    return records


def _options(study: str, value: int, images: int) -> dict[str, int]:
    """What to measure, as arguments of `point`, for a value of a study."""
    options = {"batch_size": BATCH_SIZE, "width": WIDTH, "set_size": SET_SIZE}
    times = 1
    if study == "steps":
        times = value
    else:
        options[study] = value
    return {**options, "steps": times * max(1, images // options["batch_size"])}


def _measure(options: dict[str, int]) -> dict[str, Any]:
    try:
        return process.measure("benchmarks.growth", "loop", options)[0]
    except process.ProcessError as error:  # too little memory, for one
        return {"failed": str(error)}


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a table per study, of the medians of all rounds, then what failed."""
    texts = []
    for study in dict.fromkeys(record["study"] for record in records):
        rows = [r for r in records if r["study"] == study and "seconds" in r]
        if rows:
            header, row = _LAYOUTS[study]
            # The numbers are text by now, and are to stay as they are.
            texts.append(
                tabulate(
                    [row(median, _medians(rows[0])) for median in map(_medians, rows)],
                    header,
                    tablefmt="github",
                    colalign=["right"] * len(header),
                    disable_numparse=True,
                )
            )
    texts += [
        f"{record['study']} {record['value']:,}: {reason}"
        for record in records
        for reason in dict.fromkeys(record.get("failed", []))
    ]
    return "\n\n".join(texts)


def _medians(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the median over its rounds in place of each list."""
    return {
        name: statistics.median(value) if isinstance(value, list) else value
        for name, value in record.items()
        if name != "failed"
    }


def _speed_row(now: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    return [
        f"{now['value']:,}",
        f"{now['images_per_second']:,.0f}",
        f"{1e3 * now['seconds'] / now['steps']:.2f}",
        f"{now['images_per_second'] / first['images_per_second']:.2f}",
    ]


def _set_row(now: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    more_set = now["set_bytes"] - first["set_bytes"]
    more = now["resident_bytes"] - first["resident_bytes"]
    return [
        f"{now['value']:,}",
        f"{now['images_per_second']:,.0f}",
        *(
            f"{now[name] / MB:,.0f}"
            for name in (
                "set_bytes",
                "resident_bytes_before",
                "resident_bytes",
                "peak_bytes",
            )
        ),
        f"{more / more_set:.2f}" if more_set else "",
    ]


def _steps_row(now: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    return [
        f"{now['steps']:,}",
        f"{now['seconds']:.2f}",
        f"{now['steps'] / first['steps']:.2f}",
        f"{now['seconds'] / first['seconds']:.2f}",
    ]


# study: the header of its table, and what makes a row of a value and the first value.
_LAYOUTS: dict[str, tuple[list[str], Callable[..., list[str]]]] = {
    "batch_size": (
        ["batch size", "images/s", "ms a step", "images/s, of the first"],
        _speed_row,
    ),
    "width": (
        ["width", "images/s", "ms a step", "images/s, of the first"],
        _speed_row,
    ),
    "set_size": (
        [
            "images in the set",
            "images/s",
            "set, MB",
            "resident before, MB",
            "resident, MB",
            "peak, MB",
            "resident per byte of set, beyond the first",
        ],
        _set_row,
    ),
    "steps": (
        ["steps", "seconds", "steps, of the first", "seconds, of the first"],
        _steps_row,
    ),
}


def plot(records: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Three panels, medians with all rounds behind them: batch, width, training set.

    Args:
      records: of `measure`.
      path: of the picture; its suffix says of what kind.
    """
    import matplotlib

    from evaluation import figures  # loads matplotlib: not where speed is measured

    with matplotlib.rc_context(figures.STYLE):
        figure = figures.Figure(figsize=(2.2 * figures.WIDTH, 3), layout="constrained")
        panels = figure.subplots(1, 3)
        labels = {"batch_size": "batch size", "width": "width", "set_size": "images"}
        for axes, (study, label) in zip(panels, labels.items(), strict=True):
            rows = [r for r in records if r["study"] == study and "seconds" in r]
            _curve(axes, rows, "images_per_second", 1e3, figures.BLUE, "o-")
            axes.set(xlabel=label, ylabel="1,000 images/s")
            axes.set_ylim(bottom=0)
            if study == "set_size":
                memory = axes.twinx()
                _curve(memory, rows, "resident_bytes", 1e9, figures.ORANGE, "s-")
                _curve(memory, rows, "set_bytes", 1e9, figures.GREY, "--")
                memory.set_ylabel("GB resident (dashed: the set)")
                memory.set_ylim(bottom=0)
                memory.spines["right"].set_visible(True)
                memory.grid(False)
            else:
                axes.set_xscale("log", base=2)
            axes.set_xticks([row["value"] for row in rows])
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.tick_params(axis="x", rotation=30)
        process.save(figure, path)


def _curve(
    axes: Any,
    rows: Sequence[Mapping[str, Any]],
    name: str,
    unit: float,
    colour: str,
    line: str,
) -> None:
    """Medians of a figure against the value, joined, and a dot for each round."""
    values = [row["value"] for row in rows]
    medians = [statistics.median(row[name]) / unit for row in rows]
    axes.plot(values, medians, line, color=colour, markersize=4)
    for row in rows:
        rounds = [x / unit for x in row[name]]
        axes.plot([row["value"]] * len(rounds), rounds, ".", color=colour, alpha=0.4)


def define_flags() -> None:
    """The flags of the benchmark; none is named like one of train.py's."""
    flags.DEFINE_integer("rounds", 3, "Measurements of each.", lower_bound=1)
    flags.DEFINE_integer("timed_images", 60_000, "Images of each.", lower_bound=1)
    process.define_flags(["loop"])
    flags.adopt_module_key_flags(process)


def main(_: list[str]) -> None:
    """Measures one point, or starts itself for each of them in turn."""
    if FLAGS.peer:
        print(json.dumps(point(**process.options([*OPTIONS, "threads"]))))
        return
    records = measure(FLAGS.rounds, FLAGS.timed_images, FLAGS.cpu_threads)
    print(table(records))
    if FLAGS.plot:
        plot(records, FLAGS.plot)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
