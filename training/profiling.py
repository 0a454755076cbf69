# SPDX-License-Identifier: Apache-2.0
"""--profile_steps=a,b: records what TensorFlow does in those steps."""

import re
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from system import console, errors
from training import runs


def parse(words: Sequence[str] | None) -> tuple[int, int] | None:
    """Parses --profile_steps: the first step to profile, and the first after them.

    Raises UserError if these are not two steps in ascending order.
    """
    if words is None:
        return None
    if len(words) != 2 or not all(re.fullmatch("[0-9]{1,18}", w) for w in words):
        raise errors.UserError("expected two whole numbers, such as 100,120")
    first, end = map(int, words)
    if first >= end:
        raise errors.UserError(f"expected a first step below {end}, got {first}")
    return first, end


class Profile:
    """Profiles a range of steps of a training loop; a context manager.

    Call `begin` before and `finish` after each call of the graph. The folder is that of
    TensorBoard's events, and gets plugins/profile/. Raises RunError if that fails.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: Path):
        self.first, self.end = steps or (-1, -1)
        self.folder = folder
        self.running = self.ran = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._stop()  # if the loop ended within the range
        if self.first >= 0 and not self.ran and not error:
            console.warn(
                f"nothing was profiled, since step {self.first:,} was not trained here:"
                " give other --profile_steps"
            )

    def cut(self, step: int, count: int) -> int:
        """Shortens a call of `count` steps so that it crosses no end of the range."""
        ends = [end - step for end in (self.first, self.end) if end > step]
        return min([count, *ends])

    def begin(self, step: int) -> None:
        """Starts the profiler if the range starts at this step."""
        if step == self.first:
            tf.profiler.experimental.start(str(self.folder))
            self.running = self.ran = True

    def finish(self, step: int) -> None:
        """Stops the profiler if the range ends at this step."""
        if step == self.end:
            self._stop()

    def _stop(self) -> None:
        if not self.running:
            return
        self.running = False
        try:
            tf.profiler.experimental.stop()
        except tf.errors.OpError as error:
            raise runs.RunError(
                f"cannot write the profile to {self.folder}: {errors.reason(error)};"
                " make room, or leave --profile_steps out"
            ) from None
