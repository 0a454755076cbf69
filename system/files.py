# SPDX-License-Identifier: Apache-2.0
"""Writing files that are complete or absent, even after a power cut.

A folder from someone else may hold links to other places. So we follow no link inside a
folder: `replacing` replaces the link by the new file, `append` refuses it, `find_link`
reports it. Only for a path that the user typed is `follow=True`.
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

from system import errors


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str], *, follow: bool = False
) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces `path` at the end, unless there is an error.

    A reader sees the old file or the new one, never a part. Hard links to the old file
    keep its content. With `follow`, for a path that the user typed, a symbolic link
    stays and its target is replaced; otherwise the link is.

    Raises OSError if the disk is full, the folder not writable, path a device or pipe,
    …
    """
    path = Path(os.path.realpath(path) if follow else path)
    if os.path.lexists(path) and not (
        path.is_symlink() or path.is_file() or path.is_dir()
    ):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # Left by an earlier process with our number, or a link planted there.
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        with contextlib.suppress(OSError):  # it has usually been renamed
            temporary.unlink()


def write(
    path: str | os.PathLike[str],
    content: str | bytes,
    *,
    follow: bool = False,
    remedy: str = "choose another place",
) -> None:
    """Writes bytes, or text as UTF-8, with `replacing`; UserError if that fails.

    The remedy says what to do then, for the message.
    """
    content = content.encode() if isinstance(content, str) else content
    try:
        with replacing(path, follow=follow) as file:
            file.write(content)
    except OSError as error:
        raise errors.UserError(
            f"cannot write {os.fspath(path)}: {errors.reason(error)}; free some space,"
            f" or {remedy}"
        ) from None


def check_writable(
    path: str | os.PathLike[str], flag: str, *, is_folder: bool = False
) -> None:
    """Raises UserError if a file cannot be written; call it before long work.

    Args:
      path: file, which is left as it is; links are followed.
      flag: name of the flag that chose the path, for the message.
      is_folder: whether `path` is a folder, to be created if missing, for any files.
    """
    real = Path(os.path.realpath(path))
    try:
        if is_folder:
            folder = real
            while not folder.exists():
                folder = folder.parent
        else:
            folder = real.parent
            if real.is_dir():
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            if real.exists() and not real.is_file():
                raise OSError(errno.EINVAL, "not a regular file")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise errors.UserError(
            f"cannot write {os.fspath(path)}: {errors.reason(error)}; choose another"
            f" --{flag}"
        ) from None


def append(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file for reading and appending; creates it if it is missing.

    Raises OSError if it is a symbolic link or has a hard link, so that a file elsewhere
    would be altered; if it is a pipe or a device; or if it cannot be opened.
    """
    options = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    # O_NONBLOCK: opening a pipe would otherwise wait for its other end.
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
    """Finds a link that leads out of a folder, or a file that may never end.

    Looks at these names in the folder, and searches those of folders to the bottom. The
    folder may be a link itself. Returns the first link, pipe, socket or device and what
    it is; None if there is none.
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
    """Removes temporary files that `replacing` left in a folder when it was killed."""
    for path in Path(folder).glob(".*"):
        match = re.fullmatch(r"\..+\.(\d{1,10})", path.name, re.ASCII)
        plain = path.is_symlink() or path.is_file()  # a link goes, not its target
        if match and plain and not is_running(int(match[1])):
            path.unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    """Whether another process with this number is alive, and so may own a file."""
    if pid == os.getpid():
        return False  # the owner was an earlier process with our number
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def flush(path: str | os.PathLike[str], *, forget: bool = False) -> None:
    """Waits until a file, or the names in a folder, would survive a power cut.

    With `forget`, the system drops its copy in memory, if it can, so that the next
    reader reads the disk. Raises OSError if there is no such file, or the disk failed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # it may be a pipe
    try:
        os.fsync(descriptor)
        if forget and hasattr(os, "posix_fadvise"):  # Linux
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
