# SPDX-License-Identifier: Apache-2.0
"""`python -m data [mnist|digits]`: finds or downloads a dataset and verifies it.

The exit code is 1 if files are damaged, and 3 if they cannot be found or downloaded.
"""

if __name__ == "__main__":  # first: the other imports take a while
    from system import console

    console.start()

import data
from system import cli, console, errors

# Kaggle's files must be downloaded by someone who accepted the competition's terms.
NAMES = [name for name in data.DATASETS if name != "kaggle"]


def main(argv: list[str]) -> None:
    """Prints one line about the dataset."""
    arguments = argv[1:]
    name = arguments[0] if arguments else "mnist"
    if len(arguments) > 1 or name not in NAMES:
        raise errors.UsageError(
            f"got {' '.join(arguments)!r}; expected {console.command('-m', 'data')}"
            f" [{'|'.join(NAMES)}]"
        )
    dataset = data.load(name)
    print(
        f"{name}: {len(dataset.train_images):,} training and "
        f"{len(dataset.test_images):,} test images, {dataset.source}"
    )


if __name__ == "__main__":
    cli.run(main, arguments=True)
