"""What a run's manifest tells of its start: command, code, versions, machine and data."""

import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import sys

import numpy as np

from research import sharding


def entry(data, together=1):
    """What manifest.json keeps of a start.

    Args:
        data: of describe_data.
        together: how many runs share this process's time.
    """
    versions = {
        name: importlib.metadata.version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    }
    return {
        "command": [os.path.basename(sys.argv[0]), *map(hidden, sys.argv[1:])],
        "commit": _git("rev-parse", "HEAD").strip() or None,
        "uncommitted": _git("status", "--porcelain").splitlines(),  # files that the commit does not tell of
        "versions": {"python": platform.python_version(), **versions},
        "machine": machine(),
        "together": together,
        "devices": [device.device_kind for device in sharding.all_devices()],
        "data": data,
    }


def hidden(text):
    """A text without the passwords of URLs in it."""
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)


def machine():
    """The cores that this process may use, of those that there are, and the processor: "1 core of 2 (AMD EPYC)"."""
    cores, own = os.cpu_count(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    words = f"{own} core{'s' * (own > 1)}" + (f" of {cores}" if own < cores else "")
    return words + (f" ({found[1].strip()})" if found else "")


def _git(*arguments):
    """What git says of this code; "" where there is no git, or no repository."""
    try:
        folder = pathlib.Path(__file__).parent
        return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=folder).stdout
    except FileNotFoundError:
        return ""


def describe_data(dataset, splits):
    """What manifest.json keeps of the data; `splits` are the base splits that are in memory, and so hashed."""
    return {
        "name": dataset.name,
        "features": {name: [list(shape), np.dtype(dtype).name] for name, (shape, dtype) in dataset.features.items()},
        "examples": dict(dataset.examples),
        "classes": dataset.classes,
        "labels": list(dataset.labels),
        "sequences": list(dataset.sequences),
        "tokenizer": dataset.tokenizer.digest if dataset.tokenizer else None,
        "fingerprint": {base: dataset.fingerprint(base) for base in splits} if dataset.fingerprint else {},
        **({"parts": {name: describe_data(part, ()) for name, part in dataset.parts.items()}} if dataset.parts else {}),
    }
