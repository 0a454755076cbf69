# SPDX-License-Identifier: Apache-2.0
"""MNIST: found on disk or downloaded, and checked against pinned SHA-256 sums."""

import errno
import hashlib
import os
import queue
import sys
import threading
import time
from collections.abc import Sequence

from data import idx
from data.dataset import Dataset
from data.idx import DataError
from system import console, errors, untrusted

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TRAIN_LABELS = "train-labels-idx1-ubyte.gz"
TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"

# The canonical files; the sums imply 60,000 training and 10,000 test digits.
FILES = {
    TRAIN_IMAGES: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    TRAIN_LABELS: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    TEST_IMAGES: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    TEST_LABELS: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

_SCHEMES = ("https://",)
_TIMEOUT_SECONDS = 10  # without a byte
_DEADLINE_SECONDS = 600
_PACKET_BYTES = 1 << 16
_MOST_BYTES = 10 << 20  # the longest file has 9.5 MiB
_CHUNK_BYTES = 1 << 20
_PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_BESIDE_PROJECT = os.path.normpath(os.path.join(_PROJECT, os.pardir, "shared", "mnist"))


class DataUnavailable(DataError):
    """MNIST is nowhere on this machine and no mirror gave it."""

    exit_code = errors.NO_MNIST


def load(data_dir: str | None = None) -> Dataset:
    """Returns MNIST: 60,000 training and 10,000 test digits.

    A given `data_dir` is the only place looked at. Else the first that holds any of
    the four files counts: the folder that the environment variable MNIST_DIR names (if
    it holds none, that is said on standard error), `../shared/mnist` beside the
    project, the user's cache. What the cache lacks is downloaded into it; anywhere
    else a missing file is an error, and an altered file is one everywhere.

    Args:
      data_dir: a folder with the four canonical .gz files, or None to search.

    Raises:
      DataError: a place holds some of the files but not all, or an altered one.
      DataUnavailable: found nowhere, and no mirror gave it.
    """
    place = _find(data_dir)
    paths = {name: os.path.join(place, name) for name in FILES}
    for name, path in paths.items():
        _verify(path, FILES[name])
    train_images, train_labels = idx.read_pair(paths[TRAIN_IMAGES], paths[TRAIN_LABELS])
    test_images, test_labels = idx.read_pair(paths[TEST_IMAGES], paths[TEST_LABELS])
    return Dataset(
        name="mnist",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        hashes=dict(FILES),
        source=place,
    )


def fetch(cache: str, mirrors: Sequence[str]) -> None:
    """Downloads the files that the cache lacks, each from the first mirror that can.

    A file gets its name only when it is whole and its SHA-256 is right: pooch
    downloads to a temporary name, checks, and renames. A file already there is left
    alone, even an altered one: `load` checks them all.

    Args:
      cache: the folder to fill; made if need be.
      mirrors: addresses of folders, each ending in a slash, in order of preference.

    Raises:
      DataUnavailable: no mirror gave a file, or the cache cannot be written.
    """
    for name, digest in FILES.items():
        if not os.path.exists(os.path.join(cache, name)):
            _download(name, digest, cache, mirrors)


def _find(data_dir: str | None) -> str:
    if data_dir is not None:
        if not _holds_any(data_dir):
            raise DataError(
                f"{data_dir}: holds no MNIST file; expected {', '.join(FILES)}; "
                "name the folder that holds them, or none to search and download"
            )
        return data_dir
    for place in _places():
        if _holds_any(place):
            return place
        if place != _BESIDE_PROJECT:
            told = f"mnist: MNIST_DIR={place} holds no MNIST file, looking elsewhere"
            print(console.one_line(told), file=sys.stderr)
    cache = _cache_dir()
    fetch(cache, MIRRORS)
    return cache


def _places() -> list[str]:
    chosen = os.environ.get("MNIST_DIR")
    if not chosen:
        return [_BESIDE_PROJECT]
    return [os.path.expanduser(chosen), _BESIDE_PROJECT]


def _cache_dir() -> str:
    # Here, and below, because only a download should cost the loading of pooch.
    import pooch

    return os.path.join(pooch.os_cache("lenet-selu"), "mnist")


def _holds_any(place: str) -> bool:
    return any(os.path.exists(os.path.join(place, name)) for name in FILES)


def _verify(path: str, digest: str) -> None:
    try:
        found = _sha256(path)
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: missing, though other MNIST files are there; add it, or choose "
            "another folder with --data_dir or MNIST_DIR"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected a file of MNIST; "
            "check what it is and its permissions"
        ) from error
    if found != digest:
        raise DataError(
            f"{path}: is not MNIST's file, its SHA-256 is {found}; expected {digest}; "
            "replace it with a sound copy (or delete it, if this is the cache)"
        )


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with untrusted.open_file(path) as file:
        if os.fstat(file.fileno()).st_size > _MOST_BYTES:
            raise OSError(errno.EFBIG, f"longer than {_MOST_BYTES} bytes")
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


class _Refused(ValueError):
    """An answer of a server that is not taken."""


def _transfer(url: str, target: str, _: object) -> None:
    """Downloads a file as pooch wants it done, with no trust in the server.

    Raises:
      requests.RequestException: no answer, or one that says no.
      _Refused: an answer that leads elsewhere, is too long, or takes too long.
    """
    from tqdm import tqdm

    if not url.startswith(_SCHEMES):
        raise _Refused(f"not {' or '.join(_SCHEMES)}")
    end = time.monotonic() + _DEADLINE_SECONDS
    packets: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()
    gone = threading.Event()
    # A server can be slow in its name, its handshake, its headers, or byte by byte, of
    # which no time limit of requests bounds the whole. So the thread that waits for it
    # is left behind when the time is up, and ends with its packet or the program.
    waiting = threading.Thread(
        target=_receive, args=(url, packets, gone), name=url, daemon=True
    )
    name = os.path.basename(url)
    received = 0  # a bar that is not shown does not count
    with (
        open(target, "wb") as file,
        tqdm(desc=name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        waiting.start()
        try:
            while (packet := _next(packets, end)) is not None:
                received += len(packet)
                bar.update(len(packet))
                if received > _MOST_BYTES:
                    raise _Refused(f"longer than {_MOST_BYTES} bytes")
                file.write(packet)
        finally:
            gone.set()


def _next(packets: queue.SimpleQueue, end: float) -> bytes | None:
    """What `_receive` gives, by a time of `time.monotonic`; None after the last.

    Raises:
      _Refused: it comes too late.
      Exception: whatever went wrong in `_receive`.
    """
    left = end - time.monotonic()
    try:
        packet = packets.get(timeout=max(0, left))
    except queue.Empty:
        left = 0
    if left <= 0:
        raise _Refused(f"took more than {_DEADLINE_SECONDS} s") from None
    if isinstance(packet, Exception):
        raise packet
    return packet


def _receive(url: str, packets: queue.SimpleQueue, gone: threading.Event) -> None:
    """Asks a server for a file, and passes on what comes: packets, then None."""
    import requests

    try:
        with requests.get(
            url,
            stream=True,
            timeout=_TIMEOUT_SECONDS,
            allow_redirects=False,  # the mirrors need none
            headers={"Accept-Encoding": "identity"},
        ) as response:
            if response.status_code != 200:
                raise requests.HTTPError(response=response)
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise _Refused("packed once more")
            for packet in response.iter_content(_PACKET_BYTES):
                packets.put(packet)
                if gone.is_set():
                    return
        packets.put(None)
    except Exception as error:  # raised again in the thread that waits for it
        packets.put(error)


def _download(name: str, digest: str, cache: str, mirrors: Sequence[str]) -> None:
    import pooch
    import requests

    failures = []
    for mirror in mirrors:
        try:
            pooch.retrieve(mirror + name, digest, name, cache, downloader=_transfer)
            return
        except requests.RequestException as error:
            reason = type(error).__name__
            if error.response is not None:
                reason = f"HTTP status {error.response.status_code}"
        except _Refused as error:
            reason = str(error)
        except ValueError:  # how pooch says that the hash differs
            reason = "wrong SHA-256"
        except OSError as error:
            raise DataUnavailable(
                f"{cache}: MNIST cannot be stored there ({error.strerror}); free some "
                "space, or name a folder that holds it with --data_dir or MNIST_DIR"
            ) from error
        print(console.one_line(f"mnist: {mirror + name}: {reason}"), file=sys.stderr)
        failures.append(f"{mirror} ({reason})")
    raise DataUnavailable(
        f"{name}: not in {', '.join([*_places(), cache])}, and no mirror gave it: "
        f"{', '.join(failures)}; connect to the network, or put {', '.join(FILES)} "
        "into a folder and name it with --data_dir or MNIST_DIR"
    )
