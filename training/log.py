# SPDX-License-Identifier: Apache-2.0
"""Reports of a run as it trains: progress bar, console, TensorBoard, profiler."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from system import console
from training import history, profiling, summaries
from training.fed import Fed, write
from training.graph import flatten
from training.session import Session
from training.state import Resumed, State, Totals

HISTOGRAM_IMAGES = 32  # enough for 65,000 activations of LeNet's first layer


class Log:
    """The reports of a training loop; a context manager around it.

    Args:
      run: the run; its directory gets metrics.csv and TensorBoard events. Workers but
        the first show no progress bar and no warnings.
      splits: "train", and the splits that are scored.
      resumed: where the run continues.
      total_steps: number of steps of the run.
      config: the run's `config.Config`.

    Attributes:
      summaries: writer of TensorBoard events.
      seconds: duration of the last call of the graph.
    """

    def __init__(
        self,
        run: Session,
        splits: Sequence[str],
        resumed: Resumed,
        total_steps: int,
        config: Any,
    ):
        self._run_dir, self._config = run.run_dir, config
        self._rows, self._quiet = resumed.rows, run.workers.place.number > 0
        self.seconds = 0.0
        steps = profiling.parse(config.profile_steps)
        with contextlib.ExitStack() as stack:
            self.summaries = stack.enter_context(
                summaries.Summaries(run.run_dir, splits, resumed.event_lengths)
            )
            self._profile = stack.enter_context(
                profiling.Profile(steps, run.run_dir / "train")
            )
            self._bar = stack.enter_context(
                tqdm(
                    initial=resumed.progress.step * config.batch_size,
                    total=total_steps * config.batch_size,
                    unit="img",
                    unit_scale=True,
                    dynamic_ncols=True,
                    disable=self._quiet,
                )
            )
            # Until now an error closes what was opened; from now on `__exit__` does.
            self._stack = stack.pop_all()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def begin_epoch(self, epoch: int) -> None:
        """Shows the epoch in front of the progress bar."""
        self._bar.set_description(f"epoch {epoch}")

    def graph(self, graph: tf.Graph, state: State) -> None:
        """Writes the traced training graph of a new run for TensorBoard."""
        if state.progress.step == 0:
            self.summaries.graph(flatten(graph, state.parts))

    def fed(self, epoch: int, fed: Fed) -> None:
        """Writes what the network is fed in an epoch's first step."""
        self.summaries.fed(epoch, fed.images)
        if epoch == 0:
            write(self._run_dir, fed)

    def cut(self, step: int, count: int) -> int:
        """Cuts the next call of the graph short: at a log line, or an end of profiling.

        Returns its number of steps, `count` at most.
        """
        return self._profile.cut(step, min(count, self._config.log_steps))

    @contextlib.contextmanager
    def timed(self, step: int) -> Iterator[None]:
        """Times a call of the graph that starts at `step`, and profiles it if asked."""
        self._profile.begin(step)
        began = time.perf_counter()
        yield
        self.seconds = time.perf_counter() - began

    def steps(self, totals: Totals, count: int) -> None:
        """Reports a call of the graph that took `count` steps."""
        step, images = int(totals.step), count * self._config.batch_size
        self._profile.finish(step)
        loss, accuracy = float(totals.loss) / count, int(totals.correct) / images
        self._bar.set_postfix(
            loss=f"{loss:.4f}", accuracy=f"{accuracy:.2%}", refresh=False
        )
        self._bar.update(images)
        self.summaries.steps(
            step,
            {
                "loss": loss,
                "accuracy": accuracy,
                "learning_rate": totals.rate,
                "images_per_second": images / self.seconds,
                "gradient_norm": float(np.linalg.norm(totals.gradient_norms)),
            },
        )
        if step == count:  # the first call of a new run
            since_start = time.perf_counter() - console.START
            self.say(f"step {count} done {since_start:.1f} s after the start")

    def epoch(
        self,
        row: Mapping[str, float],
        state: State,
        totals: Totals,
        images: tf.Tensor,
    ) -> None:
        """Reports an epoch, and adds it to metrics.csv.

        TensorBoard gets histograms of the network's weights, and of its activations for
        images, uint8 [n, 28, 28, 1]. The totals are of the last call of the graph.
        """
        self._rows.append(dict(row))
        self.say(_describe(row))
        self.summaries.epoch(row)
        taps: dict[str, tf.Tensor] = {}
        network, epoch = state.network, int(row["epoch"])
        network(images, training=False, taps=taps)
        norms = zip(state.trained, totals.gradient_norms, strict=True)
        self.summaries.network(epoch, network, norms, taps)
        self.summaries.flush()
        history.write(self._run_dir, self._rows)

    def say(self, text: str) -> None:
        """Prints a line above the progress bar."""
        self._bar.write(text)

    def warn(self, text: str) -> None:
        """Prints a warning to standard error, above the bar; "" prints nothing."""
        if text and not self._quiet:
            with self._bar.external_write_mode(file=sys.stderr):
                console.warn(text)


def _describe(row: Mapping[str, float]) -> str:
    figures = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in row.items()
        if name.endswith(("loss", "accuracy")) and "binary" not in name  # it flatters
    ]
    return f"epoch {row['epoch']:3d}  {'  '.join(figures)}  {row['seconds']:.0f} s"
