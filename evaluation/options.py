# SPDX-License-Identifier: Apache-2.0
"""Flags of eval.py, without those of exports and photos."""

from absl import flags

from system import cli


def define_flags() -> None:
    """Defines the flags."""
    cli.define_path(
        "run_dir",
        None,
        "Run directory of the network. Default, with --images: pretrained/robust, which"
        " comes with the project.",
    )
    cli.define_path("data_dir", None, "Folder of the data; default: see BUILD.md.")
    cli.define_path(
        "submission",
        None,
        "CSV file for Kaggle's competition: ImageId,Label of each test digit.",
    )
    flags.DEFINE_bool(
        "corruptions",
        False,
        "Also score the digits with fainter ink, blurred, noisy, rotated, shifted and"
        " eroded: how the network bears digits that are not MNIST's. Takes about as"
        " long as eleven scores.",
    )
    flags.DEFINE_integer(
        "shifts",
        0,
        "Average the probabilities over all shifts of an image by up to so many pixels:"
        " 9 of them for 1, 25 for 2, and as many times the time. The score is stored"
        " next to the plain one.",
        lower_bound=0,
        upper_bound=2,
    )
    cli.define_path(
        "calibrate",
        None,
        "Run directory, of this run or one of the same recipe, on whose held-out digits"
        " a temperature is fitted: it makes the probabilities truer and changes no"
        " answer. It is kept with this run, and used whenever that reads or exports.",
    )
    flags.DEFINE_bool(
        "ensemble",
        False,
        "Score, export or read photos by the mean of the probabilities of the runs"
        " whose directories are the arguments. Name them before you know their scores.",
    )
    cli.define_path(
        "ensemble_dir", None, "Folder for the score and the report of --ensemble."
    )
    flags.DEFINE_bool(
        "compare", False, "Compare the runs whose directories are the arguments."
    )
    cli.define_path(
        "report",
        None,
        "HTML file for the comparison: the runs' curves, tables and tests as a page.",
    )
