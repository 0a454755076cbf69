# SPDX-License-Identifier: Apache-2.0
"""`python -m data [NAME [DATA_DIR]]`: finds or downloads a dataset and verifies it.

Names are those of --dataset; only mnist, the default, is ever downloaded.

The exit code is 1 if files are damaged, and 3 if they cannot be found or downloaded.
"""

if __name__ == "__main__":  # first: the other imports take a while
    from system import console

    console.start()

import data
from system import cli, console, errors


def main(argv: list[str]) -> None:
    """Prints one line about the dataset."""
    arguments = argv[1:]
    name = arguments[0] if arguments else "mnist"
    folder = arguments[1] if len(arguments) > 1 else None
    if len(arguments) > 2 or name not in data.DATASETS:
        raise errors.UsageError(
            f"got {' '.join(arguments)!r}; expected {console.command('-m', 'data')}"
            f" [{'|'.join(data.DATASETS)} [folder]]"
        )
    dataset = data.load(name, folder)
    print(
        f"{name}: {len(dataset.train_images):,} training and "
        f"{len(dataset.test_images):,} test images{_classes(dataset)},"
        f" {dataset.source}"
    )


def _classes(dataset: data.Dataset) -> str:
    """What to say of classes that are not the ten digits."""
    if dataset.classes == data.DIGITS:
        return ""
    names = dataset.classes
    if len(names) > 4:
        names = (*names[:2], "…", names[-1])
    return f" of {len(dataset.classes)} classes ({', '.join(names)})"


if __name__ == "__main__":
    cli.run(main, arguments=True)
