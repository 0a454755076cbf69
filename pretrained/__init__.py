# SPDX-License-Identifier: Apache-2.0
"""Networks that come with the project: run directories, less what training needs.

`python -m evaluation.publish --run_dir=RUN --to=pretrained/NAME` makes one of a run.
"""

from pathlib import Path

ROBUST = Path(__file__).with_name("robust")  # of flags/robust.flags: reads photos
