# SPDX-License-Identifier: Apache-2.0
"""The settings of the augmentation: offline, before training, and online."""

import dataclasses

from augment import online_settings, plan
from augment.online_settings import OnlineSettings
from system.settings import Check, setting


@dataclasses.dataclass(frozen=True)
class Offline:
    """The training set, enlarged once before training"""

    shift_directions: list[str] = setting(
        ("up", "down", "left", "right"),
        "Add copies of all images shifted up, down, left, right; empty for none. Each"
        " direction adds 60,000 images to MNIST.",
        check=plan.checks("shift_directions"),
    )
    shift_pixels: int = setting(
        1,
        f"Largest of these shifts, 1 to {plan.MAX_PIXELS} pixels; all smaller ones are"
        " added too.",
        check=plan.checks("shift_pixels"),
    )
    shift_diagonal: bool = setting(False, "Also shift along both axes at once.")
    flip_codes: list[str] = setting(
        ("1",),
        "Add mirrored copies: 0 upside down, 1 left-right; empty for none.",
        check=plan.checks("flip_codes"),
    )
    flip_labels: list[str] = setting(
        tuple("0123456789"),
        "Classes to mirror, by name; of the digits, 0, 1 and 8 are still digits"
        " afterwards. Without this flag, only classes that are named 0 to 9.",
    )
    flip_shifted: bool = setting(False, "Also mirror the shifted images.")
    keep_originals: bool = setting(True, "Train on the originals as well.")
    # None, so that a run without deformations has the same settings as one from before
    # they existed.
    deform: list[str] | None = setting(
        None,
        "Add randomly deformed copies instead of shifts and flips: elastic, affine or"
        " both. Needs --multiply.",
    )
    multiply: int | None = setting(
        None,
        "Size of a deformed set, in times the originals: 135 makes 8.1 million digits"
        f" of MNIST, 6.4 GB on disk; 2 to {plan.MAX_MULTIPLY:,}.",
    )
    deform_seed: int | None = setting(
        None, "Seed of the deformations; another seed makes another set."
    )
    augmented_dir: str = setting(
        "augmented",
        "Folder for enlarged training sets, which are built once and used by all runs.",
        path=True,
        decides=False,
        local=True,
    )


@dataclasses.dataclass(frozen=True)
class Online(OnlineSettings):
    """Each batch, transformed while training"""


CHECKS: tuple[Check, ...] = (
    (("deform", "multiply", "deform_seed"), plan.check_deform),
    (("elastic_alpha", "elastic_sigma"), online_settings.check_elastic),
)
