# SPDX-License-Identifier: Apache-2.0
"""Dataset "digits": the 1,797 digits of scikit-learn, scaled to MNIST's size.

They need no download. They are the test part of "Optical Recognition of Handwritten
Digits" (Alpaydin and Kaynak, UCI, 1998): 8×8 pixels from 0 to 16.
"""

import hashlib

import numpy as np

from data.dataset import DataError, Dataset
from data.normalise import normalise

TEST_SIZE = 360


def load(data_dir: str | None = None) -> Dataset:
    """Returns the digits: 1,437 for training and 360 for testing.

    The test digits are the last ones of the file, 33 to 37 of each class. There are no
    files to find: a `data_dir` raises DataError.
    """
    if data_dir is not None:
        raise DataError(
            f"digits: got the folder {data_dir!r}, but this dataset comes with"
            " scikit-learn; leave the folder out"
        )
    # Here, because importing `data` should not pay for loading scikit-learn.
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
