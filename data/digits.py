# SPDX-License-Identifier: Apache-2.0
"""The 1,797 digits inside scikit-learn, brought to MNIST's size: needs no network.

They are the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and
Kaynak, UCI, 1998): 8×8 pixels of 0 to 16.
"""

import hashlib

import numpy as np

from data.dataset import Dataset
from data.idx import DataError
from data.normalise import normalise

TEST_SIZE = 360


def load(data_dir: str | None = None) -> Dataset:
    """Returns the digits: 1,437 for training, 360 for testing.

    The test digits are the last ones in the file's order, which needs no random
    numbers and leaves 33 to 37 test digits of each class.

    Args:
      data_dir: None; there is nothing to look for.

    Raises:
      DataError: `data_dir` is given.
    """
    if data_dir is not None:
        raise DataError(
            f"digits: got the folder {data_dir!r}, but this data set comes with "
            "scikit-learn; expected none, leave the folder out"
        )
    # Here, because importing `data` should not cost the loading of scikit-learn.
    import sklearn
    from sklearn.datasets import load_digits

    bunch = load_digits()
    inks = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    images = np.stack([normalise(ink) for ink in inks])[..., np.newaxis]
    labels = bunch.target.astype(np.uint8)
    arrays = {
        "train_images": images[:-TEST_SIZE],
        "train_labels": labels[:-TEST_SIZE],
        "test_images": images[-TEST_SIZE:],
        "test_labels": labels[-TEST_SIZE:],
    }
    return Dataset(
        name="digits",
        **arrays,
        hashes={
            name: hashlib.sha256(array.tobytes()).hexdigest()
            for name, array in arrays.items()
        },
        source=f"scikit-learn {sklearn.__version__}",
    )
