# SPDX-License-Identifier: Apache-2.0
"""Settings of the readers of data: how their files are understood."""

import dataclasses

from system.settings import setting


# None stands for a reader's own default, as in the settings of networks.
@dataclasses.dataclass(frozen=True)
class Data:
    """Your own data"""

    transpose: bool | None = setting(
        None,
        "Swap rows and columns of the images of --dataset=idx; default: only for files"
        " named emnist-…, whose images lie on their side.",
    )
    normalise_ink: bool | None = setting(
        None,
        "Scale the ink of each picture of --dataset=folder to 20 pixels and centre it,"
        " as MNIST's was, instead of resizing the whole picture. Good for pictures"
        " with wide or uneven margins.",
    )
