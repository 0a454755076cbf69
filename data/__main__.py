# SPDX-License-Identifier: Apache-2.0
"""`python -m data [name]`: finds or downloads a data set (mnist), and verifies it.

Exits with 1 when it is damaged, and with 3 when it is found nowhere and cannot be
downloaded.
"""

if __name__ == "__main__":  # before all else, which takes a while to load
    from system import console

    console.start()

import data
from system import cli, console, errors

# Kaggle's files are fetched by whoever has agreed to the competition's terms.
NAMES = [name for name in data.DATASETS if name != "kaggle"]


def main(argv: list[str]) -> None:
    """Prints one line about the data set."""
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
