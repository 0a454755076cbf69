# SPDX-License-Identifier: Apache-2.0
"""Dataset "mnist": found on disk or downloaded, and verified by pinned SHA-256."""

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Sequence
from concurrent import futures

from absl import flags

from data import idx
from data.dataset import DataError, Dataset
from system import console, errors, flagfiles, untrusted

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TRAIN_LABELS = "train-labels-idx1-ubyte.gz"
TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"

# SHA-256 of the canonical files, with 60,000 training and 10,000 test digits.
FILES = {
    TRAIN_IMAGES: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    TRAIN_LABELS: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    TEST_IMAGES: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    TEST_LABELS: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
# SHA-256 of what is in them: other copies of MNIST may be packed otherwise, or not.
CONTENTS = {
    TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

_SCHEMES = ("https://",)
_TIMEOUT_SECONDS = 10  # without a byte
_DEADLINE_SECONDS = 600  # for a file
_PACKET_BYTES = 1 << 16
_MAX_BYTES = 10 << 20  # the largest file has 9.5 MiB
_MAX_CONTENT_BYTES = 45 << 20  # and 44.9 unpacked
_PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_NEXT_TO_PROJECT = os.path.normpath(
    os.path.join(_PROJECT, os.pardir, "shared", "mnist")
)


class DataUnavailable(DataError):
    """MNIST was not found on this machine and could not be downloaded."""

    exit_code = errors.NO_MNIST


def load(data_dir: str | None = None) -> Dataset:
    """Returns MNIST: 60,000 training and 10,000 test digits.

    Without `data_dir`, the first place that holds any of the four files is used: the
    folder named by the environment variable MNIST_DIR, `../shared/mnist` next to the
    project, the user's cache. Files that are missing from the cache are downloaded to
    it; anywhere else a missing file is an error. An altered file always is. Files may
    also be unpacked, packed by another program, or have a dot for the second dash in
    their names; a run records the hashes of the canonical ones all the same.

    Raises DataError if a place holds only some of the files, or an altered one;
    DataUnavailable if none holds any, and they cannot be downloaded.
    """
    place = _find(data_dir)
    ahead = _ahead.pop(place, None)
    return ahead.result() if ahead else _read(place)


_ahead: dict[str, futures.Future[Dataset]] = {}  # by place: what `foresee` reads


def foresee() -> None:
    """Reads MNIST for `load`, if the command line suggests that it will be needed.

    train.py calls it in a thread, before it loads TensorFlow; inflating the files needs
    no interpreter. It only guesses, like `compile.foresee`: `load` raises its errors,
    and reads the files itself if the guess was wrong.
    """
    with contextlib.suppress(flags.Error, errors.UserError, OSError):
        words = flagfiles.expand(sys.argv[1:])
        given = {}
        for word, next_word in zip(words, [*words[1:], ""]):
            name, equals, value = word.lstrip("-").partition("=")
            given[name] = value if equals else next_word
        if given.get("dataset", "mnist") != "mnist":
            return
        places = [given["data_dir"]] if "data_dir" in given else _places()
        if place := next(filter(_holds_any, places), None):
            _ahead[place] = futures.Future()
            try:
                _ahead[place].set_result(_read(place))
            except BaseException as error:  # raised again by `load`
                _ahead[place].set_exception(error)


def _read(place: str) -> Dataset:
    paths = {name: _path(place, name) for name in FILES}
    for name, path in paths.items():
        _verify(path, name)
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
    """Downloads the files that are missing from the cache, from one mirror or another.

    pooch downloads a file to a temporary name, verifies its SHA-256, and renames it.
    Files that exist are left alone; `load` verifies them all. A mirror is the URL of a
    folder that ends in a slash.

    Raises DataUnavailable if no mirror has a file, or the cache cannot be written.
    """
    for name, digest in FILES.items():
        if not os.path.exists(os.path.join(cache, name)):
            _download(name, digest, cache, mirrors)


def _find(data_dir: str | None) -> str:
    if data_dir is not None:
        if not _holds_any(data_dir):
            raise DataError(
                f"{data_dir}: holds no MNIST file; expected {', '.join(FILES)};"
                " choose the folder that holds them, or none to search and download"
            )
        return data_dir
    for place in _places():
        if _holds_any(place):
            return place
        if place != _NEXT_TO_PROJECT:
            warning = f"mnist: MNIST_DIR={place} holds no MNIST file; looking elsewhere"
            print(console.one_line(warning), file=sys.stderr)
    cache = _cache_dir()
    fetch(cache, MIRRORS)
    return cache


def _places() -> list[str]:
    chosen = os.environ.get("MNIST_DIR")
    if not chosen:
        return [_NEXT_TO_PROJECT]
    return [os.path.expanduser(chosen), _NEXT_TO_PROJECT]


def _cache_dir() -> str:
    # Here, and below, because only a download should pay for loading pooch.
    import pooch

    return os.path.join(pooch.os_cache("lenet-selu"), "mnist")


def _holds_any(place: str) -> bool:
    return any(os.path.exists(_path(place, name)) for name in FILES)


def _path(place: str, name: str) -> str:
    """Path of a file under its canonical name or, if that is missing, another."""
    packed = (name, name.replace("-idx", ".idx"))
    for other in (*packed, *(path.removesuffix(".gz") for path in packed)):
        if os.path.exists(path := os.path.join(place, other)):
            return path
    return os.path.join(place, name)


def _verify(path: str, name: str) -> None:
    """Raises DataError unless a file is the canonical one, or has the same content."""
    try:
        if untrusted.sha256(path, _MAX_CONTENT_BYTES) == FILES[name]:
            return
        actual = idx.unpacked_sha256(path, _MAX_CONTENT_BYTES)
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: missing, although the folder holds other MNIST files; add it, or"
            " choose another folder with --data_dir or MNIST_DIR"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected a file of MNIST;"
            " check what it is and its permissions"
        ) from error
    if actual != CONTENTS[name]:
        raise DataError(
            f"{path}: is not MNIST's file, the SHA-256 of its content is {actual};"
            f" expected {CONTENTS[name]}; replace it with an intact copy (in the cache,"
            " just delete it); --dataset=idx reads other data of this form"
        )


class _Refused(ValueError):
    """A server's response that we do not accept."""


def _transfer(url: str, target: str, _: object) -> None:
    """Downloader for pooch that does not trust the server.

    Raises RequestException if there is no response or one with an error; _Refused if it
    is compressed, too long, or takes too long.
    """
    from tqdm import tqdm

    if not url.startswith(_SCHEMES):
        raise _Refused(f"not {' or '.join(_SCHEMES)}")
    end = time.monotonic() + _DEADLINE_SECONDS
    packets: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()
    gone = threading.Event()
    # A server can be slow in its DNS, handshake, headers or body, and no timeout of
    # requests bounds the sum. So a thread waits for it, which is abandoned when the
    # time is up, and ends with its packet or with the program.
    waiting = threading.Thread(
        target=_receive, args=(url, packets, gone), name=url, daemon=True
    )
    name = os.path.basename(url)
    received = 0  # a hidden bar does not count
    with (
        open(target, "wb") as file,
        tqdm(desc=name, unit="B", unit_scale=True, disable=None) as bar,
    ):
        waiting.start()
        try:
            while (packet := _next(packets, end)) is not None:
                received += len(packet)
                bar.update(len(packet))
                if received > _MAX_BYTES:
                    raise _Refused(f"longer than {_MAX_BYTES} bytes")
                file.write(packet)
        finally:
            gone.set()


def _next(packets: queue.SimpleQueue, end: float) -> bytes | None:
    """Next packet from `_receive`, None after the last one; raises what that raised.

    Raises _Refused once the deadline, on the clock of `time.monotonic`, has passed.
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
    """Requests a file and queues its packets, then None; or an exception."""
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
                raise _Refused("compressed again")
            for packet in response.iter_content(_PACKET_BYTES):
                packets.put(packet)
                if gone.is_set():
                    return
        packets.put(None)
    except Exception as error:  # raised again by `_next`, in the main thread
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
        except ValueError:  # pooch found another hash
            reason = "wrong SHA-256"
        except OSError as error:
            raise DataUnavailable(
                f"{cache}: MNIST cannot be stored there ({error.strerror}); free some"
                " space, or name a folder that holds it with --data_dir or MNIST_DIR"
            ) from error
        print(console.one_line(f"mnist: {mirror + name}: {reason}"), file=sys.stderr)
        failures.append(f"{mirror} ({reason})")
    raise DataUnavailable(
        f"{name}: not in {', '.join([*_places(), cache])}, and no mirror provided it:"
        f" {', '.join(failures)}; connect to the network, or put {', '.join(FILES)}"
        " into a folder and name it with --data_dir or MNIST_DIR"
    )
