"""A folder in Hugging Face's layout, file by file: nothing in it is believed before it is checked, nothing is executed.

config.json                   what the model is
model.safetensors             its weights; or model.safetensors.index.json and the files that it names
"""

import json
import os
import pathlib
import shutil

import jax.numpy as jnp
import numpy as np

from research.data.reading import read_text
from research.errors import UserError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
OTHERS = ("tf_model.h5", "flax_model.msgpack")
FLOATS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(jnp.bfloat16)}
DTYPES = FLOATS | {"F64": "<f8", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}


def read_json(path):
    """Reads a JSON file's object.

    Raises:
        UserError: 3, for a file that is missing, is not a JSON object, or has a name twice.
    """
    try:
        data = json.loads(read_text(path), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UserError(3, f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise UserError(3, f"{path}: not a JSON object")
    return data


def _once(pairs):
    found = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} stands there twice")
        found[name] = value
    return found


def read_weights(folder):
    """The weights of a folder: {name: array}, of the types that the files have, mapped and not yet read.

    Returns:
        the weights, and the path that an error about one that is missing names.

    Raises:
        UserError: 3, for a folder with none, with two kinds of them, or with files that are damaged.
    """
    there = [name for name in (WEIGHTS, INDEX, *PICKLES, *OTHERS) if (folder / name).exists()]
    kinds = [name for name in there if name != PICKLES[1]]
    if len(kinds) > 1:
        raise UserError(3, f"{folder}: two kinds of weights, {' and '.join(kinds)}; leave one of them there")
    if not there:
        raise UserError(3, f"{folder}: no weights: neither {WEIGHTS} nor {INDEX}")
    path = folder / there[0]
    if not path.is_file():
        raise UserError(3, f"{path}: not a file")
    if path.name in (*PICKLES, *OTHERS):
        how = "a pickle, which may run code when it is read" if path.name in PICKLES else "not safetensors"
        raise UserError(
            3, f"{path}: {how}; it is not read: transformers' save_pretrained writes the same weights as {WEIGHTS}"
        )
    return (_tensors(path) if path.name == WEIGHTS else _shards(path)), path


def _shards(index):
    """The tensors that an index tells of, out of files beside it."""
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(file, str) for file in named.values()):
        raise UserError(3, f"{index}: no weight_map that names a file for each tensor")
    found = {}
    for file in dict.fromkeys(named.values()):
        if pathlib.PurePath(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            raise UserError(3, f"{index}: names {file!r}, which is no .safetensors file of this folder; it is not read")
        path = index.with_name(file)
        tensors, wanted = _tensors(path), {name for name, place in named.items() if place == file}
        for name in sorted(tensors.keys() ^ wanted):
            how = "tells of" if name in wanted else "does not tell of"
            has = "has" if name in tensors else "does not have"
            raise UserError(3, f"{path}: {has} the tensor {name}, which {index.name} {how} there")
        found |= tensors
    return found


def _tensors(path):
    """The tensors of a safetensors file; the library checks the header and that tensors cover the file, each byte once.

    It takes a name that stands there twice, and gives no bfloat16 to NumPy: so the header is read here again.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy"):
            data = np.memmap(path, np.uint8, "r")
    except FileNotFoundError:
        raise UserError(3, f"{path}: is not there") from None
    except OSError as error:
        raise UserError(3, f"{path}: cannot be read: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        with path.open("rb") as file:
            start = file.read(2)
        pickled = start[:1] == b"\x80" or start == b"PK"  # as pickle and torch.save begin
        how = "a pickle, which may run code when it is read; it is not" if pickled else f"not safetensors: {error}"
        raise UserError(3, f"{path}: {how}") from error
    begin = 8 + int.from_bytes(data[:8], "little")
    try:
        header = json.loads(bytes(data[8:begin]), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UserError(3, f"{path}: its header: {error}") from error
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            if entry["dtype"] not in DTYPES:
                raise UserError(3, f"{path}: {name} is of the type {entry['dtype']}, which is not read here")
            start, stop = (begin + at for at in entry["data_offsets"])
            tensors[name] = data[start:stop].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def as_float32(path, name, x, shape):
    """A weight widened to float32.

    Raises:
        UserError: 3, for one of another shape or type, or with a number that is not finite.
    """
    if x.shape != tuple(shape):
        raise UserError(3, f"{path}: {name} has the shape {x.shape}; by config.json it is {tuple(shape)}")
    if x.dtype not in FLOATS.values():
        raise UserError(3, f"{path}: {name} is of the type {x.dtype}; float32, float16 or bfloat16 is wanted")
    x = np.array(x, np.float32)
    if not np.isfinite(x).all():
        at = tuple(map(int, np.argwhere(~np.isfinite(x))[0]))
        raise UserError(3, f"{path}: {name}{list(at)} is {x[at]}, not a finite number")
    return x


def write(folder, files, weights):
    """A new folder, written beside and renamed.

    Args:
        files: {name: JSON data, or the text itself}.
        weights: {name: float32 array}.

    Raises:
        UserError: 2 where there is something already, 5 where it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(2, f"{folder}: there is something already; choose another folder")
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        scratch.mkdir(parents=True)
        for name, data in files.items():
            text = data if isinstance(data, str) else json.dumps(data, indent=2) + "\n"
            (scratch / name).write_text(text, encoding="utf-8")
        save_file({name: np.ascontiguousarray(x) for name, x in weights.items()}, scratch / WEIGHTS, {"format": "pt"})
        (scratch / WEIGHTS).chmod((scratch / "config.json").stat().st_mode)  # the library's is for its owner alone
        os.replace(scratch, folder)
    except (OSError, SafetensorError) as error:  # the library's own, of a full disk
        raise UserError(5, f"{folder}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
