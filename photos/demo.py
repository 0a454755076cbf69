# SPDX-License-Identifier: Apache-2.0
"""A page on localhost to draw a digit or drop a photo, and see how a network reads it.

    python -m photos.demo
    python -m photos.demo --run_dir=runs/lenet-s0

It needs the extra `demo`, Gradio. The page and its server ask nothing of any other
machine, and what is uploaded is deleted at the end.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()

from system import device  # isort: skip  (first: it loads TensorFlow)

import base64
import contextlib
import importlib.util
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

import evaluation
import pretrained
from data import decode
from data.dataset import DIGITS
from data.normalise import normalise
from evaluation import activations, mosaics
from photos import annotate, reading
from system import cli, console, errors

FLAGS = flags.FLAGS

HOST = "127.0.0.1"
TEMP_DIR = "GRADIO_TEMP_DIR"
CANVAS_PIXELS = 224  # side
PEN_PIXELS = 18  # MNIST's pens are about a tenth as wide as its digits are high
TILE_PIXELS = 10  # side of a pixel of the network's image, as it is shown
MAX_BARS = 10
PAD = Path(__file__).with_name("pad.js")
PAD_HTML = (
    f'<canvas width="{CANVAS_PIXELS}" height="{CANVAS_PIXELS}" data-pen="{PEN_PIXELS}"'
    ' aria-label="Draw here"></canvas><button>Clear</button>'
)
# `touch-action` lets a finger draw instead of scrolling the page.
PAD_CSS = """
canvas { width: 100%; max-width: 400px; aspect-ratio: 1; display: block; margin: 0 auto;
  border: 1px solid #bbb; border-radius: 8px; cursor: crosshair; touch-action: none; }
button { display: block; margin: 10px auto 0; padding: 6px 28px; color: inherit;
  border: 1px solid #bbb; border-radius: 8px; background: none; cursor: pointer;
  font: inherit; }
"""
# Gradio puts the label of a picture on it.
PAGE_CSS = """
.gradio-container { width: 100% !important; max-width: 1120px !important;
  margin: 0 auto !important; }
#seen, #maps, #read { padding-top: 34px; }
#seen img, #maps img { image-rendering: pixelated; }
"""
# Enforced by the browser: nothing is loaded from, or sent to, any other place.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self';"
    " frame-ancestors 'none'"
)
HELP = (
    "Draw one, as large as you like: it is scaled and centred as MNIST's digits were."
    " Or drop a photo of many."
)


class DemoError(errors.UserError):
    """The page cannot be shown: no Gradio, or the port is in use."""


def define_flags() -> None:
    """Defines the flags of the page."""
    cli.define_path(
        "run_dir",
        str(pretrained.ROBUST),
        "Run directory of the network; default: the one that comes with the project.",
    )
    flags.DEFINE_integer(
        "on_port",
        None,
        "Port on localhost; default: 7860, or the next free one.",
        lower_bound=1,
        upper_bound=65535,
    )


# --- what is shown ---


class Reader:
    """A network's view of drawings and photos, as pictures and words."""

    def __init__(self, run_dir: Path):
        self.reader = evaluation.load(run_dir)
        self.predict = self.reader.run.predict

    def drawing(self, ink: np.ndarray) -> tuple[Any, Any, Any]:
        """Reads a drawing of one digit, uint8 [H, W], 0 for paper, 255 for ink.

        Returns:
          The image as the network has it, enlarged, uint8 [H, W]; probabilities by
          class; the maps of the first layer, uint8 [H, W, 3]. None if nothing is drawn.
        """
        try:
            image = normalise(ink)
        except ValueError:
            return None, None, None
        (probabilities,) = self.reader.predict(image).probabilities
        maps = activations.first_maps(self.predict.network, image)
        shown = {n: float(p) for n, p in zip(self.reader.names, probabilities)}
        enlarged = np.kron(image, np.ones((TILE_PIXELS, TILE_PIXELS), np.uint8))
        return enlarged, shown, mosaics.maps_alone(maps)

    def photo(self, path: str | None) -> tuple[Any, str]:
        """Reads a photo: it with its digits drawn on it, and they as a line each."""
        if not path:
            return None, ""
        try:
            page = reading.read(self.predict, Path(path), classes=self.reader.names)
            photo = decode.read(Path(path))
        except errors.UserError as error:
            line = console.one_line(str(error).replace(path, Path(path).name))
            return None, f"`{line.replace('`', ' ')}`"
        if page.warning:
            console.warn(page.warning)
        picture = annotate.draw(photo.pixels, page.readings, photo.scale)
        return picture, _lines(page.readings)


def ink_of(text: str) -> np.ndarray:
    """What pad.js sends as an image, uint8 [CANVAS_PIXELS, CANVAS_PIXELS].

    Raises ValueError if it is anything else.
    """
    content = base64.b64decode(text, validate=True)
    return np.frombuffer(content, np.uint8).reshape(CANVAS_PIXELS, CANVAS_PIXELS)


def _lines(readings: list[reading.Reading]) -> str:
    """Classes of a page as Markdown, a line for each of its rows."""
    if not readings:
        return "Nothing found."
    rows: dict[int, list[str]] = {}
    for one in readings:
        rows.setdefault(one.row, []).append(f"{one.digit}{'?' if one.doubtful else ''}")
    text = "\n".join(" ".join(row) for row in rows.values())
    limit = f"{reading.DOUBTFUL_PROBABILITY:.0%}"
    doubtful = sum(one.doubtful for one in readings)
    note = f" A ? marks a probability below {limit}." if doubtful else ""
    return f"```\n{text}\n```\n{len(readings)} read.{note}"


# --- the page ---


def page(reader: Reader) -> Any:
    """The page as Gradio's Blocks."""
    gradio = _gradio()
    title = _title(reader.reader)
    picture = {"interactive": False, "buttons": []}
    with gradio.Blocks(title=title, analytics_enabled=False, fill_width=True) as blocks:
        gradio.Markdown(f"# {title}\n{HELP}")
        with gradio.Tab("Draw"), gradio.Row():
            with gradio.Column(min_width=280):
                pad = gradio.HTML(
                    html_template=PAD_HTML,
                    css_template=PAD_CSS,
                    js_on_load=PAD.read_text(encoding="utf-8"),
                    elem_id="pad",
                )
            with gradio.Column(min_width=280):
                label = "What it reads"
                bars = gradio.Label(
                    label=label, num_top_classes=MAX_BARS, elem_id="bars"
                )
            with gradio.Column(min_width=280):
                label = "What the network sees: 28 × 28 pixels"
                seen = gradio.Image(label=label, elem_id="seen", height=250, **picture)
                label = "Its first layer: red above 0, blue below"
                maps = gradio.Image(label=label, elem_id="maps", **picture)
        with gradio.Tab("Photo"), gradio.Row():
            with gradio.Column(scale=1, min_width=280):
                label = "Drop a photo: PNG, JPEG, WebP, BMP or TIFF"
                photo = gradio.File(
                    label=label, file_types=list(decode.SUFFIXES), elem_id="photo"
                )
                words = gradio.Markdown(elem_id="words")
            with gradio.Column(scale=2, min_width=280):
                read = gradio.Image(label="What was read", elem_id="read", **picture)

        def drawn(text: str) -> tuple:
            return reader.drawing(ink_of(text))

        options = {"show_progress": "hidden", "api_visibility": "private"}
        pad.input(drawn, pad, [seen, bars, maps], trigger_mode="always_last", **options)
        photo.change(reader.photo, photo, [read, words], api_visibility="private")
    return blocks


def _title(reader: Any) -> str:
    """What the page is called: "lenet-s0 reads digits", or of what else."""
    digits = tuple(reader.names) == DIGITS
    what = "digits" if digits else f"pictures of {len(reader.names)} classes"
    return f"{reader.run.directory.name} reads {what}"


def _gradio() -> Any:
    """Gradio, told to keep to this machine before it is loaded.

    Raises:
      DemoError: it is not installed.
    """
    if not importlib.util.find_spec("gradio"):
        command = console.command(
            *("-m", "pip", "install", "--no-build-isolation"),
            *("--editable", f"{console.PROJECT}[demo]"),
        )
        raise DemoError(
            "the demo needs Gradio, which is not installed: make demo installs it in an"
            f" environment of its own, or, into this one, {command}"
        )
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"  # of a package that Gradio loads
    import gradio

    return gradio


class Policy:
    """Adds `POLICY` to every answer of a web application, as ASGI middleware."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                header = (b"content-security-policy", POLICY.encode())
                message = {**message, "headers": [*message["headers"], header]}
            await send(message)

        await self.app(scope, receive, sending)


@contextlib.contextmanager
def serve(run_dir: Path, port: int | None = None) -> Iterator[str]:
    """Serves the page on localhost; gives its address.

    Raises:
      DemoError: the port is in use, or Gradio is not installed.
      UserError: there is no such run.
    """
    _gradio()  # refuses at once if it is missing
    reader = Reader(run_dir)
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        before = os.environ.get(TEMP_DIR, "")
        os.environ[TEMP_DIR] = folder  # for uploads, and for what is shown
        blocks = page(reader)
        try:
            yield _launch(blocks, port)
        finally:
            blocks.close(verbose=False)
            os.environ[TEMP_DIR] = before


def _launch(blocks: Any, port: int | None) -> str:
    """Starts the server in a thread; returns the page's address."""
    theme = _gradio().themes.Default(font="sans-serif", font_mono="monospace")
    try:
        _, address, _ = blocks.launch(
            **{"server_name": HOST, "server_port": port, "share": False},
            **{"prevent_thread_lock": True, "quiet": True, "ssr_mode": False},
            **{"theme": theme, "css": PAGE_CSS, "footer_links": []},
            max_file_size=decode.MAX_BYTES,
            app_kwargs={"middleware": [(Policy, (), {})]},
        )
    except OSError:
        where = f"port {port} is" if port else "all of Gradio's ports are"
        raise DemoError(f"{where} in use on {HOST}: give another --on_port") from None
    return address


def main(_: list[str]) -> None:
    """Serves until Ctrl-C or SIGTERM."""
    device.set_threads(0)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to delete the uploads
    with serve(Path(FLAGS.run_dir), FLAGS.on_port) as address:
        print(f"{FLAGS.run_dir} is shown at {address} until Ctrl-C", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    define_flags()
    cli.run(main)
