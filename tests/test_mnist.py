# SPDX-License-Identifier: Apache-2.0
"""Finding, verifying and downloading MNIST, with tiny files from a server on this host.

The last test reads the real files, if they are in a folder next to the project.
"""

import contextlib
import functools
import gzip
import hashlib
import http.server
import os
import socket
import threading
import time

import numpy as np
import pytest

from data import __main__ as program
from data import idx, mnist
from data.idx import DataError
from system import errors

COUNTS = {"train": 3, "t10k": 2}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; some folders that it does not have answer in a way of theirs.

    cut: an answer stops short of its length. endless: it goes on and on. drip: so
    slowly that it has none. packed: it is compressed again. moved: it leads to good/
    here, on another host or by another scheme.
    """

    def do_GET(self):
        folder, _, name = self.path[1:].partition("/")
        answer = getattr(self, f"_{folder.partition('-')[0]}", None)
        if answer is None:
            return super().do_GET()
        Handler.asked.append(self.path)
        with contextlib.suppress(ConnectionError):
            answer(folder, name)

    asked: list[str] = []

    def _begin(self, status=200, **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()

    def _cut(self, folder, name):
        self._begin(Content_Length="1000")
        self.wfile.write(b"too little")

    def _endless(self, folder, name):
        self._begin(Content_Length="not a number" if folder[-1] == "x" else "9" * 18)
        for _ in range(32):  # MiB: no mistake of the client's shall fill the disk
            self.wfile.write(bytes(1 << 20))

    def _drip(self, folder, name):
        if folder == "drip-head":
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
        else:
            self._begin()
        for _ in range(100):
            self.wfile.write(b"a")
            time.sleep(0.01)

    def _packed(self, folder, name):
        self._begin(Content_Encoding="gzip")
        self.wfile.write(gzip.compress(bytes(50 << 20)))

    def _moved(self, folder, name):
        host, port = self.server.server_address
        place = {
            "moved-here": f"/good/{name}",
            "moved-host": f"http://localhost:{port}/good/{name}",
            "moved-file": f"file://{self.directory}/good/{name}",
            "moved-ftp": f"ftp://{host}/good/{name}",
        }
        self._begin(302, Location=place[folder])

    def log_message(self, *arguments):
        pass


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """Returns a folder with four tiny files that stand in for MNIST."""
    place = tmp_path / "server" / "good"
    place.mkdir(parents=True)
    sums, contents = {}, {}
    for name in mnist.FILES:
        count = COUNTS[name.split("-")[0]]
        shape = (count, 28, 28) if "images" in name else (count,)
        idx.write_idx(tmp_path / "raw", np.full(shape, count, np.uint8))
        raw = (tmp_path / "raw").read_bytes()
        contents[name] = hashlib.sha256(raw).hexdigest()
        content = gzip.compress(raw)
        (place / name).write_bytes(content)
        sums[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(mnist, "FILES", sums)
    monkeypatch.setattr(mnist, "CONTENTS", contents)
    monkeypatch.setattr(mnist, "_NEXT_TO_PROJECT", str(tmp_path / "beside"))
    monkeypatch.setattr(mnist, "_cache_dir", lambda: str(tmp_path / "cache"))
    monkeypatch.setattr(mnist, "MIRRORS", ())
    # The server of these tests has no certificate.
    monkeypatch.setattr(mnist, "_SCHEMES", ("https://", "http://127.0.0.1:"))
    monkeypatch.delenv("MNIST_DIR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return place


@pytest.fixture
def server(tmp_path):
    """Returns the address of a server for tmp_path/server."""

    def handler(*arguments):
        return Handler(*arguments, directory=str(tmp_path / "server"))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        # Asks every 10 ms whether to stop: its own half second slows the tests.
        threading.Thread(target=running.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def copy(source, target):
    target.mkdir()
    for name in mnist.FILES:
        (target / name).write_bytes((source / name).read_bytes())
    return target


def error_of(function, *arguments):
    with pytest.raises(DataError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_given_folder_is_loaded(tiny):
    dataset = mnist.load(str(tiny))
    assert dataset.train_images.shape == (3, 28, 28, 1)
    assert dataset.test_images.shape == (2, 28, 28, 1)
    assert dataset.train_labels.tolist() == [3, 3, 3]
    assert dataset.test_labels.tolist() == [2, 2]
    assert dataset.hashes == mnist.FILES
    assert dataset.source == str(tiny)


def test_folders_are_searched_in_order(tiny, tmp_path, monkeypatch, capsys):
    cache = copy(tiny, tmp_path / "cache")
    assert mnist.load().source == str(cache)
    beside = copy(tiny, tmp_path / "beside")
    assert mnist.load().source == str(beside)
    monkeypatch.setenv("MNIST_DIR", str(tiny))
    assert mnist.load().source == str(tiny)
    assert mnist.load(str(cache)).source == str(cache)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("MNIST_DIR", str(tmp_path))
    assert mnist.load().source == str(beside)
    assert f"MNIST_DIR={tmp_path} holds no MNIST file" in capsys.readouterr().err


def test_a_given_folder_without_mnist_is_an_error(tmp_path, tiny):
    copy(tiny, tmp_path / "beside")
    message = error_of(mnist.load, str(tmp_path))
    assert message.startswith(f"{tmp_path}: holds no MNIST file")


@pytest.mark.parametrize("place", ["given", "MNIST_DIR", "beside"])
@pytest.mark.parametrize("fault", ["missing", "altered", "folder"])
def test_a_faulty_folder_is_an_error(tiny, tmp_path, monkeypatch, place, fault):
    copy(tiny, tmp_path / "cache")
    faulty = copy(tiny, tmp_path / "beside" if place == "beside" else tmp_path / "x")
    if place == "MNIST_DIR":
        monkeypatch.setenv("MNIST_DIR", str(faulty))
    path = faulty / mnist.TEST_LABELS
    path.unlink()
    if fault == "altered":
        path.write_bytes(b"something else")
    elif fault == "folder":
        path.mkdir()
    message = error_of(mnist.load, str(faulty) if place == "given" else None)
    reason = {"missing": "missing", "altered": "SHA-256", "folder": "cannot be read"}
    assert message.startswith(f"{path}: ") and reason[fault] in message


def test_missing_files_are_downloaded_to_the_cache(tiny, tmp_path, server, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (server + "good/",))
    cache = copy(tiny, tmp_path / "cache")
    (cache / mnist.TRAIN_IMAGES).unlink()
    kept = (cache / mnist.TEST_IMAGES).stat().st_mtime_ns
    assert mnist.load().source == str(cache)
    assert sorted(os.listdir(cache)) == sorted(mnist.FILES)
    assert (cache / mnist.TEST_IMAGES).stat().st_mtime_ns == kept


def test_an_altered_file_in_the_cache_is_an_error(tiny, tmp_path, server, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", (server + "good/",))
    path = copy(tiny, tmp_path / "cache") / mnist.TRAIN_LABELS
    path.write_bytes(b"altered")
    assert error_of(mnist.load).startswith(f"{path}: is not MNIST's file")
    assert path.read_bytes() == b"altered"


@pytest.mark.parametrize(
    ("mirror", "reason"),
    [
        ("absent/", "HTTP status 404"),
        ("cut/", "ChunkedEncodingError"),
        ("wrong/", "wrong SHA-256"),
    ],
)
def test_the_next_mirror_is_tried(tiny, tmp_path, server, capsys, mirror, reason):
    wrong = copy(tiny, tmp_path / "server" / "wrong")
    for name in mnist.FILES:
        (wrong / name).write_bytes(b"wrong bytes")
    cache = tmp_path / "cache"
    mnist.fetch(str(cache), [server + mirror, server + "good/"])
    assert f"{server}{mirror}{mnist.TRAIN_IMAGES}: {reason}" in capsys.readouterr().err
    assert mnist.load(str(cache)).hashes == mnist.FILES
    assert sorted(os.listdir(cache)) == sorted(mnist.FILES)


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("moved-here", "HTTP status 302"),
        ("moved-host", "HTTP status 302"),
        ("moved-file", "HTTP status 302"),
        ("moved-ftp", "HTTP status 302"),
        ("endless", "longer than"),
        ("endless-x", "longer than"),
        ("packed", "compressed again"),
        ("drip", "took more than"),
        ("drip-head", "took more than"),
    ],
)
def test_a_server_is_not_trusted(tmp_path, server, monkeypatch, folder, reason):
    if folder.startswith("drip"):
        monkeypatch.setattr(mnist, "_DEADLINE_SECONDS", 0.2)
    cache = tmp_path / "cache"
    began = time.monotonic()
    assert reason in error_of(mnist.fetch, str(cache), [f"{server}{folder}/"])
    assert time.monotonic() - began < 0.9  # the drip goes on for a second
    assert os.listdir(cache) == []


def test_downloads_use_tls_only(tmp_path, server, monkeypatch):
    monkeypatch.setattr(mnist, "_SCHEMES", ("https://",))
    Handler.asked.clear()
    assert "not https://" in error_of(
        mnist.fetch, str(tmp_path / "cache"), [f"{server}cut/", "file:///", "ftp://x/"]
    )
    assert Handler.asked == []


def test_hosts_and_hashes_are_pinned(monkeypatch):
    monkeypatch.undo()
    assert all(mirror.startswith("https://") for mirror in mnist.MIRRORS)
    assert mnist._SCHEMES == ("https://",)
    for name, digest in mnist.FILES.items():
        assert os.path.basename(name) == name  # it cannot leave the cache
        assert len(digest) == 64 and int(digest, 16)


def test_a_link_in_the_cache_is_not_written_through(tiny, tmp_path, server):
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    cache.mkdir()
    (cache / mnist.TRAIN_LABELS).symlink_to(outside)
    mnist.fetch(str(cache), [server + "good/"])
    assert not outside.exists()
    assert not (cache / mnist.TRAIN_LABELS).is_symlink()


def test_a_file_that_is_too_long_is_not_hashed(tmp_path):
    with open(tmp_path / "file", "wb") as file:
        file.truncate(1 << 33)
    path = str(tmp_path / "file")
    assert "longer than" in error_of(mnist._verify, path, mnist.TRAIN_IMAGES)


def dotted(name):
    return name.replace("-idx", ".idx")


@pytest.mark.parametrize(
    ("rename", "pack"),
    [
        (lambda name: name.removesuffix(".gz"), bytes),
        (lambda name: dotted(name).removesuffix(".gz"), bytes),
        (dotted, functools.partial(gzip.compress, compresslevel=1)),
        (str, bytes),
    ],
    ids=["unpacked", "dots", "repacked", "misnamed"],
)
def test_mnist_is_known_by_its_content(tiny, tmp_path, rename, pack):
    place = tmp_path / "other"
    place.mkdir()
    for name in mnist.FILES:
        content = gzip.decompress((tiny / name).read_bytes())
        (place / rename(name)).write_bytes(pack(content))
    dataset, canonical = mnist.load(str(place)), mnist.load(str(tiny))
    assert dataset.hashes == canonical.hashes == mnist.FILES
    np.testing.assert_array_equal(dataset.train_images, canonical.train_images)
    np.testing.assert_array_equal(dataset.test_labels, canonical.test_labels)
    path = place / rename(mnist.TEST_LABELS)
    path.write_bytes(pack(content[:-1] + b"\1"))  # one label differs
    assert error_of(mnist.load, str(place)).startswith(f"{path}: is not MNIST's file")


def test_the_pinned_contents_are_those_of_the_pinned_files(monkeypatch):
    monkeypatch.undo()
    if not os.path.isdir(mnist._NEXT_TO_PROJECT):
        pytest.skip("MNIST is not next to the project")
    for name, digest in mnist.CONTENTS.items():
        path = os.path.join(mnist._NEXT_TO_PROJECT, name)
        assert idx.unpacked_sha256(path, mnist._MAX_CONTENT_BYTES) == digest


def test_nothing_is_left_when_every_mirror_fails(tmp_path, server, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    (tmp_path / "server" / "wrong").mkdir()
    (tmp_path / "server" / "wrong" / mnist.TRAIN_IMAGES).write_bytes(b"wrong bytes")
    mirrors = (server + "absent/", closed, server + "cut/", server + "wrong/")
    monkeypatch.setattr(mnist, "MIRRORS", mirrors)
    monkeypatch.setenv("MNIST_DIR", str(tmp_path))
    message = error_of(mnist.load)
    places = [str(tmp_path), str(tmp_path / "beside"), str(tmp_path / "cache")]
    assert all(place in message for place in [*mirrors, *places])
    for reason in ("404", "ConnectionError", "wrong SHA-256", "--data_dir"):
        assert reason in message
    assert os.listdir(tmp_path / "cache") == []


def test_an_unwritable_cache_is_reported(tmp_path, server):
    (tmp_path / "file").write_bytes(b"")
    cache = str(tmp_path / "file" / "cache")
    message = error_of(mnist.fetch, cache, [server + "good/"])
    assert message.startswith(f"{cache}: MNIST cannot be stored there")


def test_the_exit_code_distinguishes_unavailable_from_bad(tiny, tmp_path, capsys):
    """The Makefile relies on this exit code."""

    def exit_code(*arguments):
        try:
            program.main(["data", *arguments])
        except errors.UserError as error:
            return error.exit_code
        return 0

    assert exit_code() == 3
    beside = copy(tiny, tmp_path / "beside")
    program.main(["data", "mnist"])
    out = capsys.readouterr().out
    assert out == f"mnist: 3 training and 2 test images, {beside}\n"
    (beside / mnist.TEST_IMAGES).write_bytes(b"")
    assert exit_code("mnist") == 1
    assert exit_code("cifar") == exit_code("mnist", "a", "b") == 2
    assert exit_code("kaggle") == 1  # nobody can load it by its name alone
    (beside / mnist.TEST_LABELS).write_bytes(b"")
    assert exit_code("mnist", str(tiny)) == 0


def test_the_real_files_are_loaded(monkeypatch):
    monkeypatch.undo()
    if not os.path.isdir(mnist._NEXT_TO_PROJECT):
        pytest.skip("MNIST is not next to the project")
    dataset = mnist.load(mnist._NEXT_TO_PROJECT)
    assert dataset.train_images.shape == (60_000, 28, 28, 1)
    assert dataset.test_images.shape == (10_000, 28, 28, 1)
    assert dataset.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(dataset.test_labels).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]
