# SPDX-License-Identifier: Apache-2.0
"""--profile_steps=a,b: what TensorFlow does in those steps, for its profiler."""

import re
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from absl import flags

from system import cli, console, errors
from training import runs


def define_flags() -> None:
    """The flag of the profiler."""
    flags.DEFINE_list(
        "profile_steps",
        None,
        "Two steps a,b: profiles from step a up to, not including, step b. The extra"
        " profile shows it in TensorBoard.",
    )
    flags.register_validator("profile_steps", cli.validator(parse))


def parse(words: Sequence[str] | None) -> tuple[int, int] | None:
    """The first step that is profiled and the first that is not any more.

    Args:
      words: the flag's; None for none.

    Raises:
      UserError: these are no such steps.
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

    Args:
      steps: as of `parse`.
      folder: of TensorBoard events, which gets plugins/profile/.

    Raises:
      RunError: here and in its methods: the folder cannot be written.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: Path):
        self.first, self.end = steps or (-1, -1)
        self.folder = folder
        self.running = self.ran = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._stop()  # of a run that ended, or broke off, within the range
        if self.first >= 0 and not self.ran and not error:
            console.warn(
                f"step {self.first:,} was not among those that were trained: nothing is"
                " profiled; give other --profile_steps"
            )

    def cut(self, step: int, count: int) -> int:
        """As many of the `count` steps from `step` on as may go into one call.

        A call must not go on beyond either end of the range.
        """
        ends = [end - step for end in (self.first, self.end) if end > step]
        return min([count, *ends])

    def begin(self, step: int) -> None:
        """To be called before the step that a call begins with."""
        if step == self.first:
            tf.profiler.experimental.start(str(self.folder))
            self.running = self.ran = True

    def finish(self, step: int) -> None:
        """To be called after a call that ended before this step."""
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
