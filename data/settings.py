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
