# SPDX-License-Identifier: Apache-2.0
"""What is computed from a finished run: scores, their report, comparisons.

`evaluation.load` is for scripts: see `evaluation.reader`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.reader import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Imports `load` when it is asked for: TensorFlow takes seconds to load."""
    if name == "load":
        from evaluation import reader

        return reader.load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
