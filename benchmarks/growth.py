# SPDX-License-Identifier: Apache-2.0
"""How time and memory of our loop grow with batch, maps, training set and steps.

Each point has its own process, so that we see its memory alone. The points take turns,
so that a slow minute of the machine hits all of them. Tracing and the first steps are
not timed.
"""

import resource
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import ours, peers, results

Point = dict[str, Any]
Studies = Mapping[str, Sequence[int]]

# Point that all others are compared with; `images` pass through the network.
BASE = {
    "batch_size": ours.BATCH_SIZE,
    "width": 1,
    "set_size": ours.IMAGES,
    "images": ours.IMAGES,
}

# Studies: the setting that grows, its values; all others are as in BASE.
STUDIES: Studies = {
    "batch_size": (32, 64, 128, 256, 512, 1024, 2048),
    "width": (1, 2, 4),
    "set_size": (60_000, 360_000, 1_500_000),
    "images": (60_000, 120_000, 240_000),
}

WARM_UP_STEPS = 20
MB = 1e6


def point(*, batch_size: int, width: int, set_size: int) -> Callable[[int], Point]:
    """Our loop at one point of a study.

    Returns a function from a number of images to the number of steps and their seconds;
    bytes of the training set; bytes resident before it was created and after the steps;
    their peak.
    """
    import train  # noqa: F401  (now, so that its memory does not count as the set's)

    before = resident_bytes()
    loop = ours.loop(set_size, batch_size=batch_size, width=width)
    loop.run(WARM_UP_STEPS)

    def answer(images: int) -> Point:
        steps = max(1, images // batch_size)
        return {
            "steps": steps,
            "seconds": loop.run(steps),
            "set_bytes": set_size * (28 * 28 + 1),
            "resident_bytes_before": before,
            "resident_bytes": resident_bytes(),
            "peak_bytes": peak_bytes(),
        }

    return answer


PEERS = {"point": point}


def resident_bytes() -> int:
    """Resident memory of this process; not on Linux: its peak."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return peak_bytes()


def peak_bytes() -> int:
    """Peak of the resident memory of this process."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(rounds: int, studies: Studies = STUDIES) -> dict[str, Any]:
    """Measures every point of the studies, one after the other, in several rounds.

    Returns:
      {"points": a list}. Each point has the names of BASE, and lists of the answers of
      `point` in each round; or `failed`, the reason why there are none.
    """
    points: list[Point] = []
    for study, values in studies.items():
        new = [{**BASE, study: value} for value in values]
        points += [one for one in new if one not in points]  # the base is in each study
    for number in range(1, rounds + 1):
        for one in points:
            if "failed" in one:
                continue
            settings = {name: one[name] for name in BASE}
            images = settings.pop("images")
            try:
                with peers.Peer(__name__, "point", settings) as peer:
                    answer = peer.ask(images)
            except peers.BenchmarkError as error:  # for example, too little memory
                one["failed"] = str(error)
                print(one["failed"])
                continue
            for name, value in answer.items():
                one.setdefault(name, []).append(value)
            speed = _speeds(one)[-1]
            print(f"round {number} of {rounds}: {settings}: {speed:,.0f} images/s")
    return {"points": points}


def _speeds(point: Mapping[str, Any]) -> list[float]:
    """Images per second of each round."""
    pairs = zip(point["steps"], point["seconds"], strict=True)
    return [steps * point["batch_size"] / seconds for steps, seconds in pairs]


def _study(result: Mapping[str, Any], study: str) -> list[Mapping[str, Any]]:
    """Points of a study, the smallest first."""
    others = BASE.keys() - {study}
    return sorted(
        (
            one
            for one in result["points"]
            if "failed" not in one and all(one[name] == BASE[name] for name in others)
        ),
        key=lambda one: one[study],
    )


def markdown(result: Mapping[str, Any]) -> str:
    """Section with a table per study of medians over the rounds, and what failed."""
    texts = [
        "## Growth",
        "Medians of the rounds; in each table one setting grows, the others are "
        + ", ".join(f"{name} {value:,}" for name, value in BASE.items())
        + ".",
    ]
    for study, (headers, row) in _LAYOUTS.items():
        points = [_medians(one) for one in _study(result, study)]
        rows = [[f"{one[study]:,}", *row(one, points[0])] for one in points]
        if rows:
            headers = [study.replace("_", " "), *headers]
            texts.append(results.table(rows, headers, texts=0))
    return "\n\n".join(texts + [p["failed"] for p in result["points"] if "failed" in p])


def _medians(point: Mapping[str, Any]) -> Point:
    """A point with medians over its rounds in place of lists."""
    medians = {
        name: statistics.median(value) if isinstance(value, list) else value
        for name, value in point.items()
    }
    return {**medians, "images_per_second": statistics.median(_speeds(point))}


def _speed_row(now: Point, first: Point) -> list[str]:
    return [
        f"{now['images_per_second']:,.0f}",
        f"{1e3 * now['seconds'] / now['steps']:.2f}",
        f"{now['images_per_second'] / first['images_per_second']:.2f}",
    ]


def _memory_row(now: Point, first: Point) -> list[str]:
    more_set = now["set_bytes"] - first["set_bytes"]
    more = now["resident_bytes"] - first["resident_bytes"]
    names = ("set_bytes", "resident_bytes_before", "resident_bytes", "peak_bytes")
    return [
        f"{now['images_per_second']:,.0f}",
        *(f"{now[name] / MB:,.0f}" for name in names),
        f"{more / more_set:.2f}" if more_set else "",
    ]


def _time_row(now: Point, first: Point) -> list[str]:
    return [
        f"{now['seconds']:.2f}",
        f"{now['images'] / first['images']:.2f}",
        f"{now['seconds'] / first['seconds']:.2f}",
    ]


_SPEED_HEADERS = ["images/s", "ms/step", "images/s, relative"]
_MEMORY_HEADERS = ["images/s", "set, MB", "resident before, MB", "resident, MB"]
_MEMORY_HEADERS += ["peak, MB", "resident bytes added per byte of set"]

# study: headers of its table, function from a point and the first one to a row.
_LAYOUTS: dict[str, tuple[list[str], Callable[[Point, Point], list[str]]]] = {
    "batch_size": (_SPEED_HEADERS, _speed_row),
    "width": (_SPEED_HEADERS, _speed_row),
    "set_size": (_MEMORY_HEADERS, _memory_row),
    "images": (["seconds", "images, relative", "seconds, relative"], _time_row),
}


def plots(result: Mapping[str, Any]) -> dict[str, Figure]:
    """The plot "growth": speed over batch, width and set; memory over the set."""
    from evaluation import figures

    @figures.styled
    def draw() -> Figure:
        figure = Figure(figsize=(figures.WIDTH, 4.8), layout="constrained")
        *panels, memory = figure.subplots(2, 2).flat
        for axes, study in zip(panels, STUDIES):  # the first three
            points = _study(result, study)
            _curve(axes, points, study, list(map(_speeds, points)), figures.BLUE, "o-")
            axes.set_ylabel("images/s")
        points = _study(result, "set_size")
        for name, colour, line in (
            ("resident_bytes", figures.ORANGE, "s-"),
            ("set_bytes", figures.GREY, "--"),
        ):
            values = [[value / 1e9 for value in one[name]] for one in points]
            _curve(memory, points, "set_size", values, colour, line)
        memory.set_ylabel("GB resident (dashed: the set)")
        return figure

    return {"growth": draw()}


def _curve(
    axes: Axes,
    points: Sequence[Mapping[str, Any]],
    study: str,
    values: Sequence[Sequence[float]],
    colour: str,
    line: str,
) -> None:
    """Line of the medians over the setting that grows, and a dot for each round."""
    grows = [point[study] for point in points]
    medians = [statistics.median(rounds) for rounds in values]
    axes.plot(grows, medians, line, color=colour, markersize=4)
    for x, rounds in zip(grows, values, strict=True):
        axes.plot([x] * len(rounds), rounds, ".", color=colour, alpha=0.4)
    if study == "set_size":
        axes.xaxis.set_major_formatter("{x:,.0f}")
    else:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xticks(grows)
    axes.tick_params(axis="x", rotation=45)
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_ylim(0, 1.1 * max(axes.dataLim.y1, 0) or 1)  # also without points
    axes.set_xlabel(study.replace("_", " "))
