# SPDX-License-Identifier: Apache-2.0
"""The page to draw on: what it shows, and, where Gradio is installed, the page itself.

CI does not install the extra `demo`. With it and Chromium, a digit is drawn with the
mouse and a photo uploaded, and all that is loaded comes from this machine.
"""

import base64
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import cv2
import numpy as np
import pytest

from data.normalise import normalise
from photos import demo, make_page, reading
from system import errors
from tests.browser import CHROMIUM, Chromium
from tests.helpers import ROOT
from tests.test_older_runs import GOLDEN

GRADIO = pytest.mark.skipif(
    not importlib.util.find_spec("gradio"), reason="the extra demo is not installed"
)


@pytest.fixture(scope="module")
def reader():
    return demo.Reader(GOLDEN)


@pytest.fixture(scope="module")
def photo(digits, tmp_path_factory):
    """A photo of a few digits."""
    path = tmp_path_factory.mktemp("photo") / "page.png"
    cv2.imwrite(str(path), make_page.draw(digits.test_images[:12], 0).picture)
    return path


def test_a_drawing_is_shown_as_the_network_has_it(reader):
    ink = np.zeros((demo.CANVAS_PIXELS,) * 2, np.uint8)
    cv2.line(ink, (150, 30), (120, 190), 255, demo.PEN_PIXELS)
    seen, bars, maps = reader.drawing(ink)
    image = normalise(ink)
    np.testing.assert_array_equal(seen[:: demo.TILE_PIXELS, :: demo.TILE_PIXELS], image)
    probabilities = reader.reader.predict(image).probabilities[0]
    assert list(bars.values()) == pytest.approx(probabilities.tolist())
    assert list(bars) == list("0123456789")
    assert maps.dtype == np.uint8 and maps.ndim == 3
    assert reader.drawing(0 * ink) == (None, None, None)


def test_what_the_canvas_sends_is_checked():
    size = demo.CANVAS_PIXELS**2
    ink = np.arange(size).astype(np.uint8)
    sent = base64.b64encode(ink.tobytes()).decode()
    np.testing.assert_array_equal(demo.ink_of(sent).ravel(), ink)
    for wrong in ("", "?", sent[:-4], sent + sent):
        with pytest.raises(ValueError):
            demo.ink_of(wrong)


def count(reader, photo):
    """What the page says: of some of the twelve, this network is too little sure."""
    return f"{len(reading.read(reader.predict, photo).readings)} read."


def test_a_photo_is_shown_with_what_was_read(reader, photo, tmp_path):
    picture, words = reader.photo(str(photo))
    assert picture.ndim == 3 and count(reader, photo) in words
    (tmp_path / "a`b.png").write_text("no picture")
    nothing, words = reader.photo(str(tmp_path / "a`b.png"))
    assert nothing is None and words.startswith("`a b.png: not a photo; expected")
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((90, 90), 255, np.uint8))
    assert reader.photo(str(blank))[1] == "Nothing found."
    assert reader.photo(None) == (None, "")


def test_a_missing_extra_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(demo.DemoError, match=r"-m pip install .*\[demo\]") as caught:
        with demo.serve(GOLDEN):
            pass
    assert str(caught.value).isprintable()


# --- with Gradio ---


@pytest.fixture(scope="module")
def address():
    """The page's address; meanwhile, this process connects to nothing else."""
    connect = socket.socket.connect

    def to_this_machine(self, place):
        assert self.family == socket.AF_UNIX or place[0] in (demo.HOST, "::1"), place
        return connect(self, place)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", to_this_machine)
        with demo.serve(GOLDEN) as address:
            folder = os.environ["GRADIO_TEMP_DIR"]
            assert os.path.isdir(folder)
            yield address
    assert not os.path.exists(folder)


@GRADIO
def test_the_page_comes_from_this_machine_alone(address):
    with urllib.request.urlopen(address) as answer:
        policy, text = answer.headers["content-security-policy"], answer.read().decode()
    assert policy == demo.POLICY and "http" not in policy
    assert re.match(r"http://127\.0\.0\.1:\d+/$", address)
    loaded = re.findall(
        r"<(?:script|link|img|iframe)[^>]*(?:src|href)=.(https?:)", text
    )
    assert not loaded and "reads digits" in text


@GRADIO
def test_a_port_in_use_is_one_line(address):
    port = int(re.findall(r"\d+", address)[-1])
    with pytest.raises(demo.DemoError, match=f"port {port} is in use .*--on_port"):
        with demo.serve(GOLDEN, port):
            pass


@pytest.fixture(scope="module")
def tab(address, tmp_path_factory):
    """A function that runs JavaScript in the page, as wide as a phone."""
    if not CHROMIUM:
        pytest.skip("no Chromium")
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        target = browser.ask("Target.createTarget", url=address)["targetId"]
        attached = browser.ask("Target.attachToTarget", targetId=target, flatten=True)

        def ask(method, **options):
            return browser.ask(method, attached["sessionId"], **options)

        screen = {"width": 390, "height": 1600, "deviceScaleFactor": 1, "mobile": True}
        ask("Emulation.setDeviceMetricsOverride", **screen)
        yield ask


def value(ask, expression):
    """Value of a JavaScript expression once it is one, or after a minute."""
    for _ in range(300):
        done = ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if found := done["result"].get("value"):
            return found
        time.sleep(0.2)
    raise AssertionError(f"not on the page: {expression}")


SHOWN = "[...document.querySelectorAll('{} img')].every(i => i.naturalWidth > 0)"
# Of a 3, whose start alone looks like another digit.
STROKE = [(0.3, 0.25), (0.5, 0.15), (0.7, 0.3), (0.5, 0.48), (0.72, 0.65), (0.3, 0.8)]

BOX = """(c => c && JSON.stringify(c.getBoundingClientRect()))
  (document.querySelector('#pad canvas'))"""
BARS = "document.querySelector('#bars').innerText"


def draw(ask):
    """Draws `STROKE` on the canvas with the mouse, in one go."""
    box = json.loads(value(ask, BOX))
    assert box["width"] > 250
    mouse = {"button": "left", "buttons": 1, "clickCount": 1}
    for number, (x, y) in enumerate([*STROKE, STROKE[-1]]):
        kind = "mouseMoved" if number else "mousePressed"
        kind = "mouseReleased" if number == len(STROKE) else kind
        x, y = box["x"] + x * box["width"], box["y"] + y * box["height"]
        ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **mouse)


def clear(ask):
    """Clears the canvas, and waits until nothing is read."""
    ask("Runtime.evaluate", expression="document.querySelector('#pad button').click()")
    assert value(ask, f"!{BARS}.includes('%')")


def percentages(ask):
    """Percentage of each class on the page, highest first."""
    text = value(ask, f"{BARS} || ' '")
    return {name: int(p) for name, p in re.findall(r"^(\d)\n(\d+)%$", text, re.M)}


@GRADIO
def test_a_digit_drawn_in_the_browser_is_read(tab, reader, monkeypatch):
    """Also if the stroke ends while its start is still being read."""
    drawing = demo.Reader.drawing

    def slowly(self, ink):
        time.sleep(0.5)
        return drawing(self, ink)

    monkeypatch.setattr(demo.Reader, "drawing", slowly)
    for _ in range(30):  # until the page listens, and nothing on it moves any more
        draw(tab)
        time.sleep(2)
        if percentages(tab):
            break
    clear(tab)
    draw(tab)
    ink = np.zeros((demo.CANVAS_PIXELS,) * 2, np.uint8)
    points = np.array(STROKE) * demo.CANVAS_PIXELS
    cv2.polylines(ink, [points.astype(int)], False, 255, demo.PEN_PIXELS)
    _, bars, _ = reader.drawing(ink)
    expected = {name: pytest.approx(100 * bars[name], abs=5) for name in bars}
    for _ in range(20):  # for two readings, the first of which loads much
        if (read := percentages(tab)) == expected:
            break
        time.sleep(0.5)
    assert read == expected
    assert next(iter(read)) == max(bars, key=bars.get)
    assert value(tab, SHOWN.format("#seen") + " && " + SHOWN.format("#maps"))
    clear(tab)


@GRADIO
def test_a_photo_uploaded_in_the_browser_is_read(tab, reader, photo, tmp_path):
    click = "[...document.querySelectorAll('button[role=tab]')].at(-1).click() || true"
    value(tab, click)
    (text := tmp_path / "text.png").write_text("no picture")
    for path, words in ((photo, count(reader, photo)), (text, "text.png: not a photo")):
        value(tab, "!!document.querySelector('#photo input[type=file]')")
        found = tab(
            "Runtime.evaluate",
            expression="document.querySelector('#photo input[type=file]')",
        )
        tab(
            "DOM.setFileInputFiles",
            files=[str(path)],
            objectId=found["result"]["objectId"],
        )
        shown = "document.querySelector('#words').innerText"
        assert value(tab, f"{shown}.includes({words!r})")
        if path is photo:
            assert value(tab, "document.querySelectorAll('#read img').length")
            assert value(tab, SHOWN.format("#read"))
            value(
                tab,
                "document.querySelector('#photo button[aria-label]').click()"
                " || true",
            )


@GRADIO
def test_nothing_is_loaded_from_elsewhere_and_nothing_scrolls_sideways(tab, address):
    loaded = value(
        tab, "JSON.stringify(performance.getEntriesByType('resource').map(e => e.name))"
    )
    names = json.loads(loaded)
    assert len(names) > 10
    assert not [n for n in names if not n.startswith((address, "data:", "blob:"))]
    assert value(tab, "document.documentElement.scrollWidth <= innerWidth")


@GRADIO
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_page_in_one_line(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-m", "photos.demo", f"--run_dir={GOLDEN}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert "is shown at http://127.0.0.1:" in process.stdout.readline()
    assert list(tmp_path.glob("demo-*"))
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == errors.INTERRUPTED
    assert said == "demo.py: interrupted\n"
    assert not list(tmp_path.glob("demo-*"))
