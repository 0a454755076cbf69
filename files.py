# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or not there, also after a power cut."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a file that gets its name when it is whole, and is removed if it is not.

    A reader sees the old file or the new one. A link stays one, and leads to it.

    Raises:
      OSError: the disk is full, the folder not writable, it is a device or a pipe, …
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        with contextlib.suppress(OSError):  # most often: it has its name already
            temporary.unlink()


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Removes what `replacing` left in a folder when its process was killed."""
    for path in Path(folder).glob(".*"):
        match = re.fullmatch(r"\..+\.(\d{1,10})", path.name, re.ASCII)
        if match and path.is_file() and not _is_running(int(match[1])):
            path.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    if pid == os.getpid():
        return False  # of an earlier process of this number: this one opens none here
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def flush(path: str | os.PathLike[str], *, forget: bool = False) -> None:
    """Waits until a file, or the names in a folder, would survive a power cut.

    Args:
      path: of the file or folder.
      forget: whether the system is to drop its copy in memory, where it can, so that
        the next to read the file reads the disk.

    Raises:
      OSError: there is no such file, or the disk has a fault.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if forget and hasattr(os, "posix_fadvise"):  # Linux
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
