# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or not there, also after a power cut; never written elsewhere.

A folder that came by mail may hold links. So nothing that is written by its name inside
a folder follows one: `replacing` puts the new file in the link's place, `append` and
`find_link` refuse it. Only a path that the user typed is followed, by `follow=True`.
"""

import contextlib
import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str], *, follow: bool = False
) -> Iterator[BinaryIO]:
    """Opens a file that gets its name when it is whole, and is removed if it is not.

    A reader sees the old file or the new one. Other names of the old one (hard links)
    keep what they had.

    Args:
      path: of the file.
      follow: whether a link stays one and its target is replaced, as for a path that
        the user names. Otherwise the link itself is replaced.

    Raises:
      OSError: the disk is full, the folder not writable, it is a device or a pipe, …
    """
    path = Path(os.path.realpath(path) if follow else path)
    if os.path.lexists(path) and not (
        path.is_symlink() or path.is_file() or path.is_dir()
    ):
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # Left by an earlier process of this number, or put there to lead elsewhere.
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        with contextlib.suppress(OSError):  # most often: it has its name already
            temporary.unlink()


def check_writable(path: str | os.PathLike[str], *, parents: bool = False) -> None:
    """Makes sure that `replacing` could write a file; for before long work.

    Args:
      path: of the file, which is not touched; a link is followed.
      parents: whether folders that are missing would be made.

    Raises:
      OSError: it could not.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    folder = path.parent
    while parents and not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass


def append(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file to be read and appended to; creates it if it is not there.

    Raises:
      OSError: it is a link, a pipe or a device, or has a second name (a hard link), so
        that another file would be altered; or it cannot be opened.
    """
    options = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    # Without O_NONBLOCK, a pipe could be waited for.
    options |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, options, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(errno.ELOOP, f"{path} is a link: delete it") from None
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink < 2:
        return os.fdopen(descriptor, "a+b")
    os.close(descriptor)
    if stat.S_ISREG(found.st_mode):
        raise OSError(errno.EMLINK, f"{path} is a hard link: delete it")
    raise OSError(errno.EINVAL, f"{path} is a pipe or a device: delete it")


def find_link(folder: Path, names: Iterable[str]) -> tuple[Path, str] | None:
    """Looks for what would lead out of a folder, or could be read for ever.

    Args:
      folder: to look in; it may be a link itself.
      names: of the files and folders to look at, and all that is below them.

    Returns:
      The first link, pipe, socket or device and which of these it is; None: there is
      none.

    Raises:
      OSError: a folder cannot be read.
    """
    waiting = [folder / name for name in names]
    while waiting:
        path = waiting.pop()
        try:
            kind = stat.S_IFMT(os.lstat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if kind == stat.S_IFDIR:
            waiting += [path / name for name in os.listdir(path)]
        elif kind == stat.S_IFLNK:
            return path, "a link"
        elif kind != stat.S_IFREG:
            return path, "a pipe, socket or device"
    return None


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Removes what `replacing` left in a folder when its process was killed."""
    for path in Path(folder).glob(".*"):
        match = re.fullmatch(r"\..+\.(\d{1,10})", path.name, re.ASCII)
        plain = path.is_symlink() or path.is_file()  # of a link only itself goes
        if match and plain and not is_running(int(match[1])):
            path.unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    """Whether another process of this number is alive, and may own what is named so."""
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
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # it may be a pipe
    try:
        os.fsync(descriptor)
        if forget and hasattr(os, "posix_fadvise"):  # Linux
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
