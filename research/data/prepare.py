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
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib

import numpy as np

from research.data.dataset import data_folders, find, from_tfds
from research.data.recipes import STDLIB, recipe
from research.errors import UserError

DAMAGED = (  # what unpacking raises: for no such member, no file and a packing unknown to zipfile, the last three
    *(OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile),
    *(KeyError, AttributeError, RuntimeError),
)


def digits():
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, prepared on first use: no download.

    Alpaydin and Kaynak 1998 (UCI, optical recognition of handwritten digits). Pixels of 0 to 16 are written as 0 to
    255. A fifth, drawn by the order of the examples' hashes, is test.
    """
    ensure("digits")
    return from_tfds("digits")


def stdlib():
    """The source of Python's standard library, prepared on first use: no download."""
    ensure(STDLIB)
    return from_tfds(STDLIB)


def ensure(name):
    """Prepares a data set that needs no download, unless it is there: digits, addition/3, stdlib."""
    if find(name) is None:
        prepare(recipe(name), data_folders()[-1])


def prepare_by_name(name, folder=None, manual=None, progress=lambda text: None):
    """Prepares a data set into a TFDS folder; returns where it is."""
    return prepare(recipe(name), folder or data_folders()[0], manual, progress)


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
    if manual is None:
        path = download(archive.url, archive.sum, downloads, progress)
    else:
        loose = {}
        for member in archive.members:
            loose |= _manual_folder(manual, member) if member[-1] == "/" else {member: _manual_file(manual, member)}
        name = archive.url.rsplit("/", 1)[-1]
        path = _manual_file(manual, name)
        if path is None and not all(loose.values()):
            raise UserError(3, f"{manual}: holds neither {name} nor {', '.join(archive.members)}")
    try:
        contents = _unpack(path, archive) if path else {member: loose[member].read_bytes() for member in loose}
    except OSError as error:
        raise UserError(3, f"{error.filename}: cannot be read: {error.strerror}") from error
    for member, data in contents.items():
        _check(f"{path or loose[member]}: {member}", data, archive.members.get(member))
    if manual is not None and None in archive.members.values():
        # Another packing of the right members is welcome; what has no sum of its own has but the archive's.
        if path:
            _check(path, path.read_bytes(), archive.sum)
        else:
            progress(f"{', '.join(archive.members)}: taken unchecked, since the sum is known of {name} alone")
    return contents


def _check(what, data, expected):
    if expected is not None and (found := hashlib.new(_kind(expected), data).hexdigest()) != expected:
        raise UserError(3, f"{what} is not the official file: its {_kind(expected)} is {found}, not {expected}")


def _kind(checksum):
    return "md5" if len(checksum) == 32 else "sha256"


def _manual_file(manual, name):
    places = [pathlib.Path(manual) / name, pathlib.Path(manual) / pathlib.PurePath(name).name]
    return next((place for place in places if place.is_file()), None)


def _manual_folder(manual, name):
    """{path below the archive: file} of a folder that has been unpacked; {name: None} of one that is not there."""
    root = pathlib.Path(manual) / name
    found = {f"{name}{path.relative_to(root)}": path for path in sorted(root.rglob("*")) if path.is_file()}
    return found or {name: None}


def _unpack(path, archive):
    try:
        if path.name.endswith(".tar.gz"):
            folders = tuple(member for member in archive.members if member[-1] == "/")
            with tarfile.open(path) as tar:
                inside = [entry.name for entry in tar if entry.isfile() and entry.name.startswith(folders)]
                for folder in folders:
                    if not any(name.startswith(folder) for name in inside):
                        raise KeyError(f"no file in {folder}")
                named = [member for member in archive.members if member not in folders]
                return {member: tar.extractfile(member).read() for member in [*named, *inside]}
        if path.name.endswith(".zip"):
            with zipfile.ZipFile(path) as packed:
                return {member: packed.read(member) for member in archive.members}
        (member,) = archive.members
        data = path.read_bytes()
        return {member: gzip.decompress(data) if path.name.endswith(".gz") else data}
    except DAMAGED as error:
        raise UserError(3, f"{path}: damaged: {error}; delete it and prepare again") from error


def download(url, checksum, folder, progress):
    """The file of a URL in `folder`, its sum checked where it is known.

    What a broken download left is gone on with, never used.
    """
    target = folder / url.rsplit("/", 1)[-1]
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "research"}  # urllib's own name is answered with 403 by some places
    request = urllib.request.Request(url, headers=headers | ({"Range": f"bytes={have}-"} if have else {}))
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
    if checksum is not None:
        with part.open("rb") as file:
            found = hashlib.file_digest(file, _kind(checksum)).hexdigest()
        if found != checksum:
            part.unlink()
            raise UserError(3, f"{url}: its {_kind(checksum)} is {found}, not {checksum}; it was deleted")
    part.rename(target)
    return target


def _write(recipe, splits, folder, progress):
    """The splits as one shard each, in the order in which TFDS's own preparation leaves them."""
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module
    from tensorflow_datasets.core import example_serializer, hashing

    features = tfds.features.FeaturesDict({field: _feature(kind) for field, kind in recipe.features.items()})
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    name, _, config = recipe.name.partition("/")
    infos = []
    for split, examples in splits.items():
        if not recipe.source_order:
            hasher = hashing.Hasher(split)
            examples = sorted(examples, key=lambda example: hasher.hash_key(example[0]))
        shard = folder / f"{name}-{split}.array_record-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(shard), "group_size:1")
        size = 0
        for i, (_, example) in enumerate(examples):
            encoded = {field: _png(value) if np.ndim(value) == 3 else value for field, value in example.items()}
            # Else the order of a record's fields, and with it the fingerprint, is another in each process.
            record = serializer.get_tf_example(features.encode_example(encoded)).SerializeToString(deterministic=True)
            writer.write(record)
            size += len(record)
            if (i + 1) % 5000 == 0 or i + 1 == len(examples):
                progress(f"{recipe.name}, {split}: {i + 1} of {len(examples)} examples")
        writer.close()
        infos.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(size),
                "shardLengths": [str(len(examples))],
            }
        )
    features.save_config(str(folder))
    info = {
        "name": name,
        **({"configName": config} if config else {}),
        "version": recipe.version,
        **({"disableShuffling": True} if recipe.source_order else {}),
        "fileFormat": "array_record",
        "location": {"urls": [recipe.homepage]},
        "splits": infos,
    }
    # Last: a folder without it is no data set.
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2))


def _feature(kind):
    """What a Recipe says of a field, as TFDS has it."""
    import tensorflow_datasets as tfds

    if kind == "text":
        return tfds.features.Text()
    if kind == "int32":
        return tfds.features.Tensor(shape=(), dtype=np.int32)
    if kind == "string":  # as text, but TFDS tells the two apart
        return tfds.features.Tensor(shape=(), dtype=np.str_)
    if isinstance(kind, dict):
        return {name: _feature(part) for name, part in kind.items()}
    kind, value = kind
    if kind == "sequence":
        return tfds.features.Sequence(_feature(value))
    return tfds.features.Image(shape=value) if kind == "image" else tfds.features.ClassLabel(names=list(value))


def _png(image):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "png")
    return file.getvalue()
