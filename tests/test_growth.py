# SPDX-License-Identifier: Apache-2.0
"""Tests of what the growth benchmark measures and reports, but not of speed."""

import json

from benchmarks import growth, peers
from tests.helpers import cells

MB = 10**6


def point(seconds, **more):
    """A point with 100 steps per round, one round for each of `seconds`."""
    rounds = len(seconds)
    return {
        **growth.BASE,
        "steps": [100] * rounds,
        "seconds": seconds,
        "set_bytes": [47 * MB] * rounds,
        "resident_bytes_before": [500 * MB] * rounds,
        "resident_bytes": [600 * MB] * rounds,
        "peak_bytes": [700 * MB] * rounds,
        **more,
    }


RESULT = {
    "points": [
        point([4.0, 4.0, 4.0], batch_size=256),
        point([2.0, 1.0, 4.0]),
        point(
            [1.0],
            set_size=360_000,
            set_bytes=[247 * MB],
            resident_bytes=[850 * MB],
            peak_bytes=[900 * MB],
        ),
        {**growth.BASE, "set_size": 1_500_000, "failed": "killed by SIGKILL"},
        point([8.2], images=240_000, steps=[400]),
    ]
}


def test_tables_give_medians_and_growth():
    text = growth.markdown(RESULT)
    assert text.startswith("## Growth\n")
    assert "batch_size 128, width 1, set_size 60,000, images 60,000" in text
    assert cells(text) == [
        ["batch size", "images/s", "ms/step", "images/s, relative"],
        ["128", "6,400", "20.00", "1.00"],
        ["256", "6,400", "40.00", "1.00"],
        ["width", "images/s", "ms/step", "images/s, relative"],
        ["1", "6,400", "20.00", "1.00"],
        [
            *("set size", "images/s", "set, MB", "resident before, MB"),
            *(
                "resident, MB",
                "peak, MB",
                "resident bytes added per byte of set",
            ),
        ],
        ["60,000", "6,400", "47", "500", "600", "700", ""],
        # 250 MB more for a set that has 200 MB more.
        ["360,000", "12,800", "247", "500", "850", "900", "1.25"],
        ["images", "seconds", "images, relative", "seconds, relative"],
        ["60,000", "2.00", "1.00", "1.00"],
        ["240,000", "8.20", "4.00", "4.10"],
    ]
    assert text.endswith("\n\nkilled by SIGKILL")


def test_plot_has_a_panel_for_each_study_and_one_for_memory():
    panels = growth.plots(RESULT)["growth"].axes
    assert [axes.get_xlabel() for axes in panels] == [
        *("batch size", "width", "set size", "set size")
    ]
    speed, memory = panels[0].lines[0], panels[3].lines[0]
    assert list(speed.get_xdata()) == [128, 256]
    assert list(speed.get_ydata()) == [6400, 6400]
    assert list(memory.get_ydata()) == [0.6, 0.85]


def test_plot_without_points():
    failed = {"points": [one for one in RESULT["points"] if "failed" in one]}
    assert len(growth.plots(failed)["growth"].axes) == 4
    assert cells(growth.markdown(failed)) == []


def test_resident_memory_is_at_most_its_peak():
    assert 10 * MB < growth.resident_bytes() <= 1.01 * growth.peak_bytes()


class StandIn:
    """A peer whose n-th answer takes n seconds; with width 3 the second one fails."""

    asked: list = []

    def __init__(self, module, name, settings):
        assert (module, name) == ("benchmarks.growth", "point")
        self.settings = settings

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, images):
        self.asked.append((*self.settings.values(), images))
        if self.settings["width"] == 3 and self.asked.count(self.asked[-1]) == 2:
            raise peers.BenchmarkError("killed by SIGKILL")
        return {"steps": 10, "seconds": float(len(self.asked))}


def test_shared_points_are_measured_once_and_failed_ones_dropped(monkeypatch):
    monkeypatch.setattr(growth.peers, "Peer", StandIn)
    monkeypatch.setattr(StandIn, "asked", [])
    studies = {"batch_size": [128, 256], "width": [1, 3], "images": [60_000, 9]}
    found = growth.measure(rounds=3, studies=studies)["points"]
    base, batch, width, images = each = [
        (128, 1, 60_000, 60_000),
        (256, 1, 60_000, 60_000),
        (128, 3, 60_000, 60_000),
        (128, 1, 60_000, 9),
    ]
    assert StandIn.asked == [*each, *each, base, batch, images]
    assert [tuple(one[name] for name in growth.BASE) for one in found] == each
    assert [one["seconds"] for one in found] == [
        *([1.0, 5.0, 9.0], [2.0, 6.0, 10.0], [3.0], [4.0, 8.0, 11.0])
    ]
    assert [one.get("failed") for one in found] == [
        *(None, None, "killed by SIGKILL", None)
    ]


def test_a_process_takes_a_few_steps():
    settings = {"batch_size": 32, "width": 2, "set_size": 100_000}
    with peers.Peer("benchmarks.growth", "point", settings) as peer:
        found = peer.ask(64)
    assert json.loads(json.dumps(found)) == found
    assert found["steps"] == 2 and found["seconds"] > 0
    assert found["set_bytes"] == 100_000 * (28 * 28 + 1)
    before, after = found["resident_bytes_before"], found["resident_bytes"]
    assert before + found["set_bytes"] < after <= 1.01 * found["peak_bytes"]
