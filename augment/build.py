# SPDX-License-Identifier: Apache-2.0
"""Builds an enlarged training set, or verifies one that exists, and draws a preview.

    python -m augment.build --dataset=mnist --preview=sheet.png
    python -m augment.build --deform=elastic,affine --multiply=135 --workers=2

train.py does the same when it needs a set; this program shows what is in it, and can
share the work among processes or machines. An interrupted build resumes.
"""

if __name__ == "__main__":  # first: the other imports take a while
    from system import console

    console.start()

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import tabulate
from absl import flags

import data
from augment import enlarged, online_settings, plan, workers
from augment.settings import CHECKS, Offline, Online
from system import cli, console, errors, files
from system.settings import define_flags as define_settings

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this program."""
    define_settings(data.Data, Offline, Online, checks=CHECKS)
    flags.DEFINE_enum("dataset", "mnist", sorted(data.DATASETS), "Dataset to enlarge.")
    cli.define_path("data_dir", None, "Folder with the dataset's files.")
    cli.define_path(
        "preview",
        None,
        "PNG file for a contact sheet of all transforms, online ones included.",
    )
    flags.DEFINE_integer(
        "workers",
        0,
        "Number of processes that build the set; 0 uses threads of this process, which"
        " suffices unless --deform is given.",
        lower_bound=0,
        upper_bound=workers.MAX_PROCESSES,
    )
    flags.DEFINE_string(
        "dask_scheduler",
        None,
        "Address of a Dask scheduler, tcp://HOST:PORT; its workers build the set and"
        " must reach --augmented_dir by the same path.",
    )
    cli.require_together(["workers", "dask_scheduler"], _check_engine)


def _check_engine(values: Any) -> None:
    workers.check_scheduler(values.dask_scheduler)
    if values.dask_scheduler and values.workers:
        raise errors.UserError(
            "--workers starts processes here, but --dask_scheduler has its own workers:"
            " give only one of them"
        )


def _engine() -> workers.Engine:
    if FLAGS.dask_scheduler:
        return functools.partial(workers.dask, FLAGS.dask_scheduler)
    if FLAGS.workers:
        return functools.partial(workers.processes, FLAGS.workers)
    return workers.threads


def table(parts: Sequence[plan.Part]) -> list[tuple[str, int]]:
    """Names and sizes of the parts; deformed copies, often many, share a line."""
    rows = []
    for name, group in itertools.groupby(
        parts, lambda part: part.name.partition(plan.COPY)[0]
    ):
        sizes = [len(part.indices) for part in group]
        rows.append((name if len(sizes) == 1 else f"{name}× {len(sizes)}", sum(sizes)))
    return [*rows, ("total", sum(size for _, size in rows))]


def main(argv: list[str]) -> None:
    """Builds or verifies the set that the flags describe."""
    plan.settings_from(FLAGS, FLAGS.flip_labels)  # refuse before the data is read
    online = online_settings.settings_from(FLAGS)
    if FLAGS.preview:
        files.check_writable(FLAGS.preview, "preview")
    dataset = data.load_for(FLAGS, FLAGS.data_dir)
    settings = plan.settings_from(FLAGS, dataset.classes)
    directory = enlarged.make(dataset, settings, FLAGS.augmented_dir, _engine())
    rows = table(plan.plan(dataset.train_labels, settings))
    print(tabulate.tabulate(rows, headers=["transform", "images"], intfmt=","))
    print(directory or "plain originals: nothing to store")
    if FLAGS.preview:
        from augment import preview  # here, because loading matplotlib takes a second

        preview.write(dataset, settings, online, FLAGS.preview)
        print(FLAGS.preview)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
