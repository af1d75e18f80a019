"""Preparing data sets in TFDS's form without TensorFlow: official name, version, features, splits and order.

Archives come from a folder on this machine or from the official place, are checked against pinned sums, and unpacked
with the standard library. A data set is written beside its place and renamed: half of one is never seen.
"""

import gzip
import hashlib
import http.client
import io
import json
import os
import pathlib
import shutil
import struct
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from research.data.dataset import data_folders, find, from_tfds
from research.errors import UserError, pick


class Archive(NamedTuple):
    url: str
    md5: str  # of the archive as the official place serves it
    members: dict  # {path inside it: md5 of its content}; of a .gz the one file it holds


class Recipe(NamedTuple):
    """How one data set is made."""

    name: str
    version: str
    shape: tuple[int, int, int]
    labels: tuple[str, ...]
    homepage: str
    archives: tuple[Archive, ...]
    examples: Callable  # {member: bytes} -> {split: [(key, image uint8[H, W, C], label)]}


def digits():
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, prepared on first use: no download.

    Alpaydin and Kaynak 1998 (UCI, optical recognition of handwritten digits). Pixels of 0 to 16 are written as 0 to
    255. A fifth, drawn by the order of the examples' hashes, is test.
    """
    if find("digits") is None:
        prepare(RECIPES["digits"], data_folders()[-1])
    return from_tfds("digits")


def _digits(members):
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * 255 / 16).astype(np.uint8)[..., None]
    order = sorted(range(len(images)), key=lambda i: hashlib.md5(f"digits {i}".encode()).digest())
    examples = [(i, images[i], int(data.target[i])) for i in order]
    return {"train": examples[360:], "test": examples[:360]}


def _idx(data):
    """The array in an IDX file: big-endian 0x08, rank, sizes, then bytes."""
    magic, rank = struct.unpack_from(">HBB", data)[1:]
    sizes = struct.unpack_from(f">{rank}I", data, 4)
    if magic != 8 or len(data) != 4 + 4 * rank + np.prod(sizes):
        raise ValueError("not an IDX file of bytes")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(sizes)


def _mnist(members):
    def split(prefix):
        images = _idx(members[f"{prefix}-images-idx3-ubyte"])
        labels = _idx(members[f"{prefix}-labels-idx1-ubyte"])
        return [(i, image[..., None], int(label)) for i, (image, label) in enumerate(zip(images, labels))]

    return {"train": split("train"), "test": split("t10k")}


def _cifar10(members):
    def split(name, files):
        records = [np.frombuffer(members[f"cifar-10-batches-bin/{file}.bin"], np.uint8) for file in files]
        records = np.concatenate(records).reshape(-1, 3073)
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return [(f"{name}_{i}", image, int(label)) for i, (image, label) in enumerate(zip(images, records[:, 0]))]

    return {"train": split("train", [f"data_batch_{i}" for i in range(1, 6)]), "test": split("test", ["test_batch"])}


def _idx_archives(place, sums):
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(
        Archive(f"{place}{name}-ubyte.gz", md5, {f"{name}-ubyte": content}) for name, (md5, content) in zip(names, sums)
    )


RECIPES = {
    "digits": Recipe("digits", "1.0.0", (8, 8, 1), tuple("0123456789"),
                     "https://archive.ics.uci.edu/dataset/80", (), _digits),
    "mnist": Recipe(
        "mnist", "3.0.1", (28, 28, 1), tuple("0123456789"), "http://yann.lecun.com/exdb/mnist/",
        _idx_archives("https://storage.googleapis.com/cvdf-datasets/mnist/", (
            ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
            ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
            ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
            ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
        )), _mnist),
    "fashion_mnist": Recipe(
        "fashion_mnist", "3.0.1", (28, 28, 1),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        "https://github.com/zalandoresearch/fashion-mnist",
        _idx_archives("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", (
            ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
            ("25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
            ("bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
            ("bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
        )), _mnist),
    "cifar10": Recipe(
        "cifar10", "3.0.2", (32, 32, 3),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        (Archive("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", {
            "cifar-10-batches-bin/data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "cifar-10-batches-bin/data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "cifar-10-batches-bin/data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "cifar-10-batches-bin/data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "cifar-10-batches-bin/data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            "cifar-10-batches-bin/test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
        }),), _cifar10),
}  # fmt: skip


def prepare_by_name(name, folder=None, manual=None, progress=lambda text: None):
    """Prepares one of RECIPES into a TFDS folder; returns where it is."""
    return prepare(pick(RECIPES, name, "data set to prepare"), folder or data_folders()[0], manual, progress)


def prepare(recipe, folder, manual=None, progress=lambda text: None):
    """Writes folder/<name>/<version> as array_record, unless it is there.

    Args:
        manual: a folder that holds the archives, or their unpacked members, in place of the official one.
        progress: called with lines for a person.

    Raises:
        UserError: 3 for an archive that is missing or not the official one, 5 where the folder cannot be written.
    """
    target = pathlib.Path(folder) / recipe.name / recipe.version
    if (target / "dataset_info.json").is_file():
        progress(f"{recipe.name}: already prepared")
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = pathlib.Path(tempfile.mkdtemp(prefix=f"{recipe.version}.incomplete-", dir=target.parent))
    except OSError as error:
        raise UserError(5, f"{target.parent}: cannot be written: {error.strerror}") from error
    try:
        members = {}
        for archive in recipe.archives:
            members |= _members(archive, manual, pathlib.Path(folder) / "downloads" / recipe.name, progress)
        _write(recipe, recipe.examples(members), scratch, progress)
        try:
            os.rename(scratch, target)
        except OSError:
            if not (target / "dataset_info.json").is_file():  # else another process was first
                raise
    except OSError as error:
        raise UserError(5, f"{target}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _members(archive, manual, downloads, progress):
    """{member: bytes}, each with its pinned sum."""
    if manual is not None:
        loose = {member: _manual_file(manual, member) for member in archive.members}
        path = _manual_file(manual, archive.url.rsplit("/", 1)[-1])
        if path is None and not all(loose.values()):
            raise UserError(
                3, f"{manual}: holds neither {archive.url.rsplit('/', 1)[-1]} nor {', '.join(archive.members)}"
            )
        contents = _unpack(path, archive) if path else {member: loose[member].read_bytes() for member in loose}
    else:
        path = download(archive.url, archive.md5, downloads, progress)
        contents = _unpack(path, archive)
    for member, data in contents.items():
        if hashlib.md5(data).hexdigest() != archive.members[member]:
            raise UserError(
                3,
                f"{path or loose[member]}: {member} is not the official file: its md5 is "
                f"{hashlib.md5(data).hexdigest()}, not {archive.members[member]}",
            )
    return contents


def _manual_file(manual, name):
    places = [pathlib.Path(manual) / name, pathlib.Path(manual) / pathlib.PurePath(name).name]
    return next((place for place in places if place.is_file()), None)


def _unpack(path, archive):
    try:
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path) as tar:
                return {member: tar.extractfile(member).read() for member in archive.members}
        (member,) = archive.members
        return {member: gzip.decompress(path.read_bytes())}
    except (OSError, EOFError, zlib.error, tarfile.TarError, KeyError, AttributeError) as error:
        raise UserError(3, f"{path}: damaged: {error}; delete it and prepare again") from error


def download(url, md5, folder, progress):
    """The file of a URL in `folder`, its sum checked. What a broken download left is gone on with, never used."""
    target = folder / url.rsplit("/", 1)[-1]
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        try:
            response = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            if error.code != 416:  # 416: the part is whole already
                raise
            response = io.BytesIO()
        if getattr(response, "status", 206) != 206:  # it does not know ranges: from the start
            have = 0
        with response, part.open("ab" if have else "wb") as file:
            total = have + int(getattr(response, "headers", {}).get("Content-Length", 0))
            while block := response.read(1 << 20):
                file.write(block)
                progress(f"{target.name}: {file.tell() / 1e6:.0f} of {total / 1e6:.0f} MB")
        if part.stat().st_size < total:  # http.client ends in silence where the other side goes away
            raise OSError(f"{part.stat().st_size} of {total} bytes came")
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise UserError(
            3,
            f"{url}: download broke off: {error}; the same command goes on where it stopped, or "
            f"--manual names a folder that holds the file",
        ) from error
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        part.unlink()
        raise UserError(3, f"{url}: its md5 is {found}, not {md5}; it was deleted")
    part.rename(target)
    return target


def _write(recipe, splits, folder, progress):
    """The splits as one shard each, in the order in which TFDS's own preparation leaves them."""
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module
    from PIL import Image
    from tensorflow_datasets.core import example_serializer, hashing

    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=recipe.shape), "label": tfds.features.ClassLabel(names=list(recipe.labels))}
    )
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    infos = []
    for split, examples in splits.items():
        hasher = hashing.Hasher(split)
        examples = sorted(examples, key=lambda example: hasher.hash_key(example[0]))
        shard = folder / f"{recipe.name}-{split}.array_record-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(shard), "group_size:1")
        for i, (_, image, label) in enumerate(examples):
            png = io.BytesIO()
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(png, "png")
            record = features.encode_example({"image": png.getvalue(), "label": label})
            writer.write(serializer.serialize_example(record))
            if (i + 1) % 5000 == 0 or i + 1 == len(examples):
                progress(f"{recipe.name}, {split}: {i + 1} of {len(examples)} examples")
        writer.close()
        infos.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(shard.stat().st_size),
                "shardLengths": [str(len(examples))],
            }
        )
    features.save_config(str(folder))
    info = {
        "name": recipe.name,
        "version": recipe.version,
        "fileFormat": "array_record",
        "location": {"urls": [recipe.homepage]},
        "splits": infos,
    }
    # Last: a folder without it is no data set.
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2))
