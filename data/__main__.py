# SPDX-License-Identifier: Apache-2.0
"""`python -m data [name]`: finds or downloads a data set (mnist), and verifies it.

Exits with 0 when it is there and sound, 1 when it is damaged, 2 for a wrong argument,
3 when it is found nowhere and cannot be downloaded, 130 when stopped by Ctrl-C.
"""

import sys

import cli
import data

# Kaggle's files are fetched by whoever has agreed to the competition's terms.
NAMES = [name for name in data.DATASETS if name != "kaggle"]


def main(arguments: list[str]) -> int:
    """Prints one line about the data set; returns the exit code."""
    name = arguments[0] if arguments else "mnist"
    if len(arguments) > 1 or name not in NAMES:
        names = "|".join(NAMES)
        print(
            f"data: got {' '.join(arguments)!r}; expected python -m data [{names}]",
            file=sys.stderr,
        )
        return cli.USAGE_ERROR
    try:
        dataset = data.load(name)
    except cli.UserError as error:
        print(f"data: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("data: interrupted", file=sys.stderr)
        return cli.INTERRUPTED
    print(
        f"{name}: {len(dataset.train_images):,} training and "
        f"{len(dataset.test_images):,} test images, {dataset.source}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
