"""Preparing without TensorFlow: from a small archive to examples read back through TFDS."""

import gzip
import hashlib
import http.server
import io
import shutil
import struct
import tarfile
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds

from research.data import prepare as module
from research.data.dataset import find
from research.data.prepare import RECIPES, Archive, download, prepare
from research.errors import UserError

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (12, 28, 28), np.uint8), (np.arange(12) % 10).astype(np.uint8)


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def small_mnist():
    """The recipe of MNIST with the sums of four small files, and these files as {name: bytes}."""
    contents = {
        "train-images-idx3-ubyte": idx(IMAGES),
        "train-labels-idx1-ubyte": idx(LABELS),
        "t10k-images-idx3-ubyte": idx(IMAGES[:5]),
        "t10k-labels-idx1-ubyte": idx(LABELS[:5]),
    }
    packed = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in contents.items()}
    md5 = lambda data: hashlib.md5(data).hexdigest()
    archives = [
        Archive(f"http://nowhere/{name}.gz", md5(packed[f"{name}.gz"]), {name: md5(contents[name])})
        for name in contents
    ]
    return RECIPES["mnist"]._replace(archives=tuple(archives)), contents, packed


@pytest.mark.smoke
@pytest.mark.parametrize("packing", ["archives", "unpacked"])
def test_mnist_from_a_manual_folder_reads_back_through_tfds(tmp_path, packing):
    recipe, contents, packed = small_mnist()
    manual = tmp_path / "manual"
    manual.mkdir()
    for name, data in (packed if packing == "archives" else contents).items():
        (manual / name).write_bytes(data)

    prepare(recipe, tmp_path / "tfds", manual)

    source = tfds.data_source("mnist", split="train", data_dir=tmp_path / "tfds")
    assert len(source) == 12
    info = tfds.builder("mnist", data_dir=tmp_path / "tfds").info
    assert str(info.version) == "3.0.1" and info.splits["test"].num_examples == 5
    assert info.features["label"].num_classes == 10
    found = {source[i]["image"].tobytes(): int(source[i]["label"]) for i in range(12)}
    assert found == {image.tobytes(): int(label) for image, label in zip(IMAGES, LABELS)}


def test_cifar10_from_an_archive_reads_back_through_tfds(tmp_path):
    images, manual = RNG.integers(0, 256, (6, 32, 32, 3), np.uint8), tmp_path / "cifar-10-binary.tar.gz"
    members = {}
    for i, name in enumerate([f"data_batch_{j}.bin" for j in range(1, 6)] + ["test_batch.bin"]):
        members[f"cifar-10-batches-bin/{name}"] = bytes([i]) + images[i].transpose(2, 0, 1).tobytes()
    with tarfile.open(manual, "w:gz") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    sums = {name: hashlib.md5(data).hexdigest() for name, data in members.items()}
    archive = RECIPES["cifar10"].archives[0]._replace(members=sums)

    prepare(RECIPES["cifar10"]._replace(archives=(archive,)), tmp_path / "tfds", tmp_path)

    source = tfds.data_source("cifar10", split="train", data_dir=tmp_path / "tfds")
    found = {int(source[i]["label"]): source[i]["image"] for i in range(5)}
    assert all(np.array_equal(found[i], images[i]) for i in range(5))


def test_what_is_not_the_official_file_is_refused_and_leaves_nothing(tmp_path):
    recipe, _, packed = small_mnist()
    for name, data in packed.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[:4])))
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte is not the official file") as error:
        prepare(recipe, tmp_path / "tfds", tmp_path)
    assert error.value.code == 3
    assert not list((tmp_path / "tfds" / "mnist").iterdir())


@pytest.mark.parametrize("cut", [0, 10, 500])
def test_a_cut_archive_is_refused(tmp_path, cut):
    recipe, _, packed = small_mnist()
    for name, data in packed.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(packed["train-images-idx3-ubyte.gz"][:cut])
    with pytest.raises(UserError, match="train-images-idx3-ubyte") as error:
        prepare(recipe, tmp_path / "tfds", tmp_path)
    assert error.value.code == 3


@pytest.fixture
def server():
    """Serves `body` with ranges on loopback; breaks off after `limit` bytes; remembers the ranges asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        body, limit, asked, ranges = b"", None, [], True

        def do_GET(self):
            value = self.headers.get("Range")
            self.asked.append(value)
            value = value if self.ranges else None
            first = int(value.split("=")[1].rstrip("-")) if value else 0
            if first >= len(self.body):
                self.send_error(416)
                return
            self.send_response(206 if value else 200)
            self.send_header("Content-Length", str(len(self.body) - first))
            self.end_headers()
            self.wfile.write(self.body[first:][: self.limit])

        def log_message(self, *arguments):
            pass

    Handler.asked = []
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/file.gz", Handler
    running.shutdown()
    running.server_close()


def test_a_broken_download_goes_on_where_it_stopped(tmp_path, server):
    url, handler = server
    handler.body, handler.limit = RNG.bytes(100_000), 60_000
    md5 = hashlib.md5(handler.body).hexdigest()
    with pytest.raises(UserError, match="download broke off|its md5"):
        download(url, md5, tmp_path, lambda text: None)
    assert not (tmp_path / "file.gz").exists()
    handler.limit = None
    path = download(url, md5, tmp_path, lambda text: None)
    assert path.read_bytes() == handler.body
    assert handler.asked == [None, "bytes=60000-"]


def test_a_server_that_knows_no_ranges_is_read_from_the_start(tmp_path, server):
    url, handler = server
    handler.body, handler.ranges = RNG.bytes(50_000), False
    (tmp_path / "file.gz.part").write_bytes(handler.body[:1000])
    assert download(url, hashlib.md5(handler.body).hexdigest(), tmp_path, str).read_bytes() == handler.body


def test_a_download_with_a_wrong_sum_is_deleted(tmp_path, server):
    url, handler = server
    handler.body = b"not the file"
    with pytest.raises(UserError, match="its md5 is") as error:
        download(url, "0" * 32, tmp_path, lambda text: None)
    assert error.value.code == 3 and not list(tmp_path.iterdir())


def test_an_unreachable_place_is_one_line(tmp_path):
    with pytest.raises(UserError, match="download broke off") as error:
        download("http://127.0.0.1:9/file", "0" * 32, tmp_path, lambda text: None)
    assert error.value.code == 3


def test_digits_prepare_themselves_and_two_at_once_do_no_harm(tmp_path, monkeypatch):
    recipe = RECIPES["digits"]
    threads = [threading.Thread(target=prepare, args=(recipe, tmp_path)) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]
    source = tfds.builder_from_directory(tmp_path / "digits" / "1.0.0").as_data_source(split="test")
    assert len(source) == 360 and source[0]["image"].shape == (8, 8, 1)


def test_a_folder_that_is_still_being_written_is_not_found(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    prepare(RECIPES["digits"], tmp_path)
    for name in ("1.0.0.incomplete-x", "1.0.0.9-incomplete", "9.9.x"):
        shutil.copytree(tmp_path / "digits" / "1.0.0", tmp_path / "digits" / name)
    shutil.copytree(tmp_path / "digits" / "1.0.0", tmp_path / "digits" / "1.0.10")
    assert find("digits") == tmp_path / "digits" / "1.0.10"


def test_unknown_data_set_lists_the_known():
    with pytest.raises(UserError, match="cifar10, digits, fashion_mnist, mnist"):
        module.prepare_by_name("mnits")
