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


def cache_home():
    """$XDG_CACHE_HOME/research: decoded arrays and compiled programs; losing them costs time only."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "research"


def cached(name, make):
    """Returns the result of make(), (arrays {field: array}, notes as JSON), from the disk if it is there by this name.

    A name holds the hash of all that the content follows from. Arrays from the disk are memory-mapped, and their files
    compared with the sums of what was written: a damaged entry is made again.
    """
    folder = cache_home() / "decoded" / name.replace("/", "_")
    if (folder / "complete").is_file():
        try:
            kept = json.loads((folder / "complete").read_text(encoding="utf-8"))
            if kept["sums"] == {field: _sum(folder, field) for field in kept["sums"]}:
                return {field: np.load(folder / f"{field}.npy", mmap_mode="r") for field in kept["sums"]}, kept["notes"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # not what was written
        shutil.rmtree(folder, ignore_errors=True)
    arrays, notes = make()
    _store(folder, arrays, notes)
    return arrays, notes


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
