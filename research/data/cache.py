"""What was made once from data and need not be made again: arrays on disk under $XDG_CACHE_HOME/research."""

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import time
import zlib

import numpy as np

from research.stderr import warn


def cache_home():
    """$XDG_CACHE_HOME/research: decoded arrays and compiled programs; losing them costs time only."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "research"


def cached(name, make):
    """Returns the result of make(), (arrays {field: array}, notes as JSON), from the disk if it was stored there.

    Arrays from the disk are memory-mapped. The check sum of each file is verified; a damaged entry is made again, and a
    warning says so.

    Args:
        name: contains a hash of everything that determines the result.
    """
    folder = cache_home() / "decoded" / name.replace("/", "_")
    if (folder / "complete").is_file():
        try:
            return _read(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warn(f"{folder}: damaged, or older: {error!r}; making it again")
            shutil.rmtree(folder, ignore_errors=True)
    arrays, notes = make()
    _store(folder, arrays, notes)
    return arrays, notes


def _read(folder):
    """Reads an entry, verified.

    Raises:
        OSError, ValueError, KeyError, TypeError or AttributeError, if it has changed or has an older format.
    """
    kept = json.loads((folder / "complete").read_text(encoding="utf-8"))
    for field, known in kept["sums"].items():
        if _sum(folder, field) != known:
            raise ValueError(f"{field}.npy has changed")
    return {field: np.load(folder / f"{field}.npy", mmap_mode="r") for field in kept["sums"]}, kept["notes"]


def file_sum(path):
    """SHA-256 of a file, bytes; one that is as it was, by place, size and time of change, is not read again.

    Raises:
        OSError.
    """
    path = pathlib.Path(path).resolve()

    def make():
        with path.open("rb") as file:
            return {"sum": np.frombuffer(hashlib.file_digest(file, "sha256").digest(), np.uint8)}, {}

    now = path.stat()
    recent = time.time_ns() - now.st_mtime_ns < 2e9  # it may yet change within the clock's grain
    known = repr((str(path), now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino))
    arrays, _ = make() if recent else cached(f"sum-{hashlib.sha256(known.encode()).hexdigest()}", make)
    return arrays["sum"].tobytes()


def _sum(folder, field):
    return zlib.crc32(np.memmap(folder / f"{field}.npy", np.uint8, "r"))


def _store(folder, arrays, notes):
    """Written beside and renamed, so that a reader never sees half of it; a cache that cannot be written is none."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = pathlib.Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    except OSError:
        return
    try:
        for field, array in arrays.items():
            np.save(scratch / f"{field}.npy", array)
        kept = {"sums": {field: _sum(scratch, field) for field in arrays}, "notes": notes}
        (scratch / "complete").write_text(json.dumps(kept), encoding="utf-8")
        os.rename(scratch, folder)
    except OSError:  # disk full, or another process was first
        shutil.rmtree(scratch, ignore_errors=True)
