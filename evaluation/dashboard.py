# SPDX-License-Identifier: Apache-2.0
"""TensorBoard over all the runs of a folder, on this machine alone.

python -m evaluation.dashboard
python -m evaluation.dashboard --runs=runs --on_port=6006
"""

import device  # noqa: F401  isort: skip  (first: it loads TensorFlow)

import contextlib
import io
import threading
from pathlib import Path

from absl import flags
from tensorboard import program

import cli

# The tab that is opened: the plots of training.summaries.CHARTS, as they are.
TAB = "#custom_scalars&_smoothingWeight=0"
# Galleries of errors, of which TensorBoard would keep those of ten epochs.
SAMPLES = "images=200"


class DashboardError(cli.UserError):
    """There is nothing to show, or no port to show it on."""


def define_flags() -> None:
    """The flags of the dashboard."""
    flags.DEFINE_string("runs", "runs", "Folder whose runs are shown.")
    # Not --port: TensorBoard takes over all the flags that there are, and has that one.
    flags.DEFINE_integer(
        "on_port",
        None,
        "Port on localhost; default: 6006 or the next one that is free.",
        lower_bound=1,
        upper_bound=65535,
    )


def serve(folder: Path, port: int | None = None) -> str:
    """Starts TensorBoard in a thread of its own.

    Args:
      folder: of the runs, which may be deeper down.
      port: None takes a free one.

    Returns:
      The address of the page, which opens on the plots that matter.

    Raises:
      DashboardError: the folder holds no events, or the port is in use.
    """
    if next(folder.rglob("*tfevents*"), None) is None:
        raise DashboardError(
            f"{folder} holds no run that TensorBoard could show: train one first, or"
            " name another folder by --runs"
        )
    options = [f"--logdir={folder}", "--host=localhost"]
    options.append(f"--samples_per_plugin={SAMPLES}")
    if port:
        options.append(f"--port={port}")
    board = program.TensorBoard()
    board.configure(["", *options])
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # praise of its own speed
            return board.launch() + TAB
    except program.TensorBoardServerException as error:
        raise DashboardError(
            f"{error.msg}; leave --on_port out for a free one"
        ) from None


def main(_: list[str]) -> None:
    """Serves until it is interrupted."""
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
