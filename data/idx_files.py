# SPDX-License-Identifier: Apache-2.0
"""Dataset "idx": four files of MNIST's form, under any names.

Fashion-MNIST, KMNIST, QMNIST and EMNIST are such sets. A file is an image or a label
file by its number of dimensions; it belongs to the training part if its name has
"train" in it, to the test part with "test" or "t10k".
"""

import os
import re
from collections.abc import Sequence

import numpy as np

from data import assemble, idx, places
from data.dataset import DataError, Dataset, empty
from system import untrusted

_KINDS = ("images", "labels")
_MAX_COLUMNS = 16  # of a label file; QMNIST's have 8
_MAPPING_BYTES = 1 << 16
_EXPECTED = "a folder with four files of MNIST's form"

Found = dict[tuple[str, str], str]  # part and kind → path


def load(data_dir: str | None = None, *, transpose: bool | None = None) -> Dataset:
    """Returns the data set in a folder.

    Args:
      data_dir: the folder; or, where several sets share one, folder/prefix.
      transpose: whether to swap rows and columns; None: if the files are EMNIST's.

    Raises DataError if there is no folder, a file is missing, damaged, or one of
    several that could be meant.
    """
    if data_dir is None:
        raise DataError(
            f"idx: no folder given; expected {_EXPECTED}; name it with --data_dir"
        )
    folder, names = places.split(data_dir, _EXPECTED)
    found = _find(data_dir, folder, names)
    images_name = os.path.basename(found["train", "images"]).lower()
    emnist = images_name.startswith("emnist-")
    turned = emnist if transpose is None else transpose
    source = data_dir
    if turned:
        why = ", as EMNIST's need" if emnist else ""
        source += f"; rows and columns of the images swapped{why}"
    mapping = [name for name in names if name.lower().endswith("mapping.txt")]
    characters = _read_mapping(os.path.join(folder, mapping[0])) if mapping else None
    train, test = (_read(found, part, turned, characters) for part in places.PARTS)
    classes = list(characters.values()) if characters else None
    return assemble.dataset("idx", train, test, source, classes)


def _find(data_dir: str, folder: str, names: Sequence[str]) -> Found:
    """Finds the four files by their names and headers."""
    found: Found = {}
    for name in names:
        part, path = places.part(name), os.path.join(folder, name)
        # A file that is there twice, packed and unpacked, is read unpacked.
        if not part or os.path.isdir(path) or name[:-3] in names:
            continue
        kind = _kind(path)
        if kind is None:
            continue
        other = found.setdefault((part, kind), path)
        if other is not path:
            both = [os.path.basename(other), name]
            raise places.ambiguous(folder, both, f"{part} {kind}")
    missing = [
        f"{part} {kind}"
        for part in places.PARTS
        for kind in _KINDS
        if (part, kind) not in found
    ]
    if missing:
        raise DataError(
            f"{data_dir}: holds no idx file of {', '.join(missing)}; expected four"
            " files with train, and test or t10k, in their names; check --data_dir"
        )
    return found


def _kind(path: str) -> str | None:
    """Tells images from labels; None for what is neither."""
    header = idx.peek(path)
    if header is None:
        return None
    _, dims = header
    if len(dims) == 3:
        return "images"
    few = len(dims) == 1 or len(dims) == 2 and dims[1] <= _MAX_COLUMNS
    return "labels" if few else None


def _read(
    found: Found, part: str, turned: bool, characters: dict[int, str] | None
) -> assemble.Part:
    """Reads the images and labels of "train" or "test"."""
    paths = [found[part, kind] for kind in _KINDS]
    images, labels = idx.read_images(paths[0]), idx.read_classes(paths[1])
    idx.check_counts(paths[0], images, paths[1], labels)
    if turned:
        upright = empty(images.shape)
        upright[:] = images.swapaxes(1, 2)
        images = upright
    numbered = assemble.Part.numbered(images, labels)
    if characters is None:
        return numbered
    for number in numbered.names:
        if int(number) not in characters:
            where = int(np.flatnonzero(labels == int(number))[0])
            raise DataError(
                f"{paths[1]}: label {number} at index {where} is not in the mapping of"
                " labels to characters next to it; expected one of"
                f" {min(characters)} to {max(characters)}; replace the files with"
                " intact copies"
            )
    return numbered._replace(names=[characters[int(n)] for n in numbered.names])


def _read_mapping(path: str) -> dict[int, str]:
    """Character of each label, from EMNIST's …-mapping.txt, sorted by label.

    A line has a label and the ASCII codes of its characters, of which we take the
    first: "1 65 97" is A and a.
    """
    try:
        lines = untrusted.read(path, _MAPPING_BYTES).decode("ascii").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); expected lines such as '1 65 97'; "
            "replace it with an intact copy"
        ) from error
    characters: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"\s*(\d{1,6})((?:\s+\d{1,6})+)\s*", line)
        code = int(match[2].split()[0]) if match else 0
        if not match or not 32 < code < 127 or chr(code) in characters.values():
            raise DataError(
                f"{path}: line {number} is {line[:40]!r}; expected a label and the"
                " ASCII codes of its characters, which no line before has; replace it"
                " with an intact copy"
            )
        characters[int(match[1])] = chr(code)
    return dict(sorted(characters.items()))
