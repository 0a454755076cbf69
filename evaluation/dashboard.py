# SPDX-License-Identifier: Apache-2.0
"""TensorBoard for all runs in a folder, on localhost only.

python -m evaluation.dashboard
python -m evaluation.dashboard --runs=runs --on_port=6006
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()

from system import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)

import base64
import contextlib
import functools
import io
import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from absl import flags
from tensorboard import program

from system import cli, errors

# The tab to open: the plots of training.summaries.CHARTS, without smoothing.
TAB = "#custom_scalars&_smoothingWeight=0"
# Pictures kept per tag; TensorBoard's own default is ten epochs.
SAMPLES = "images=200"
# With more event folders than this, TensorBoard shows none until they are ticked.
MOST_TICKED = 40
ALL = "all"  # path of the page where all are ticked


class DashboardError(errors.UserError):
    """There is nothing to show, or the port is in use."""


def define_flags() -> None:
    """Defines the flags of the dashboard."""
    cli.define_path("runs", "runs", "Folder with the run directories to show.")
    # Not --port: TensorBoard has a flag of that name, and both would clash.
    flags.DEFINE_integer(
        "on_port",
        None,
        "Port on localhost; default: 6006, or the next free one.",
        lower_bound=1,
        upper_bound=65535,
    )


def serve(folder: Path, port: int | None = None) -> str:
    """Starts TensorBoard in a thread for all runs in a folder, however deep they lie.

    Returns the address of the page, which opens on the most important plots. Raises
    DashboardError if there are no events, or a pipe; or if the port is in use.
    """
    events = list(folder.rglob("*tfevents*"))
    for path in events:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise DashboardError(
                f"{path} is a pipe, socket or device, which TensorBoard would read"
                " forever: delete it"
            )
    parts = sorted({path.parent for path in events})
    if not parts:
        raise DashboardError(
            f"{folder} holds no run that TensorBoard could show: train one first, or"
            " name another folder with --runs"
        )
    options = [f"--logdir={folder}", "--host=localhost"]
    options.append(f"--samples_per_plugin={SAMPLES}")
    if port:
        options.append(f"--port={port}")
    names = [str(part.relative_to(folder)) for part in parts]
    page = TAB + _ticked(names)
    server = functools.partial(_server, page)
    board = program.TensorBoard(server_class=server)
    board.configure(["", *options])
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # an advertisement
            return board.launch() + (ALL if len(parts) > MOST_TICKED else TAB)
    except program.TensorBoardServerException as error:
        raise DashboardError(
            f"{error.msg}; leave --on_port out to use a free one"
        ) from None


def _ticked(names: Iterable[str]) -> str:
    """The part of the address that ticks these runs."""
    choice = json.dumps(dict.fromkeys(names, True))
    choice += " " * (-len(choice) % 3)  # or base64 ends in =, which TensorBoard ignores
    return f"&runSelectionState={base64.b64encode(choice.encode()).decode()}"


def _server(page: str, app: Callable, options: Any) -> program.TensorBoardServer:
    """TensorBoard's server, with /all redirecting to `page`, a long address."""

    def answer(environ: dict, start_response: Callable) -> Iterable[bytes]:
        if environ["PATH_INFO"] != f"/{ALL}":
            return app(environ, start_response)
        start_response("302 Found", [("Location", f"/{page}")])
        return []

    return program.create_port_scanning_werkzeug_server(answer, options)


def main(_: list[str]) -> None:
    """Serves until Ctrl-C."""
    folder = Path(flags.FLAGS.runs)
    address = serve(folder, flags.FLAGS.on_port)
    print(f"TensorBoard shows {folder} at {address} until Ctrl-C", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass  # the way to end it


if __name__ == "__main__":
    define_flags()
    cli.run(main)
