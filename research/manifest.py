"""What a run's manifest tells of its start: command, code, versions, machine and data."""

import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from research import sharding
from research.data.cache import cached

# Vector extensions by their flag in /proc/cpuinfo, the widest first.
EXTENSIONS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sse4_2": "SSE4.2",
              "sve2": "SVE2", "sve": "SVE", "asimd": "NEON"}  # fmt: skip
SECONDS = 1.0  # that measuring the rates of matrix products takes, for all dtypes together
SLOWER = 0.8  # rate of bfloat16 over that of float32 below which a user is warned; 0.95 on an EPYC with avx512_bf16


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
        "gflops": matmul_gflops(),
        "together": together,
        "devices": [device.device_kind for device in sharding.all_devices()],
        "data": data,
    }


def hidden(text):
    """A text without the passwords of URLs in it."""
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)


def machine():
    """Returns the cores that this process may use, the processor and its widest vector extension.

    For example "1 core of 2 (AMD EPYC, AVX-512)". Processors with the same name may have different extensions.
    """
    cores, own = os.cpu_count(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    words = f"{own} core{'s' * (own > 1)}" + (f" of {cores}" if own < cores else "")
    info = pathlib.Path("/proc/cpuinfo")
    kind = processor(info.read_text() if info.is_file() else "")
    return words + (f" ({kind})" if kind else "")


def processor(info):
    """Returns the name of a processor and its widest vector extension from the text of /proc/cpuinfo; "" if unknown."""
    named = re.search(r"model name\s*: (.*)", info)
    flags = re.search(r"(?:flags|Features)\s*: (.*)", info)
    flags = set(flags[1].split()) if flags else set()
    name = named[1].strip() if named else platform.processor()
    widest = next((extension for flag, extension in EXTENSIONS.items() if flag in flags), "")
    return ", ".join(filter(None, (name, widest)))


@functools.cache
def matmul_gflops():
    """Returns {"float32": GFLOP/s, "bfloat16": GFLOP/s} of square matrix products on the first device.

    Machines with the same label can differ in speed. Measured once per boot of the machine and cached.
    """
    device = jax.local_devices()[0]
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
    known = [machine(), device.device_kind, jax.__version__, boot.read_text() if boot.is_file() else platform.node()]
    rate = lambda dtype: np.float64(_gflops(dtype, device, SECONDS / 2))
    measure = lambda: ({dtype: rate(dtype) for dtype in ("float32", "bfloat16")}, {})
    rates, _ = cached(f"gflops-{hashlib.sha256(json.dumps(known).encode()).hexdigest()}", measure)
    return {dtype: float(rate) for dtype, rate in rates.items()}


def _gflops(dtype, device, seconds):
    side = 1024 if device.platform == "cpu" else 8192
    x = jax.device_put(jnp.ones((side, side), dtype), device)
    multiply = jax.jit(lambda x: x @ x)
    multiply(x).block_until_ready()
    best, until = float("inf"), time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        multiply(x).block_until_ready()
        best = min(best, time.monotonic() - began)
    return round(2 * side**3 / best / 1e9, 1)


def slow_dtype(config, devices):
    """Returns a warning for the log if a model computes in bfloat16 on CPUs that are faster in float32, else []."""
    if config.model.get("dtype") != "bfloat16" or {device.platform for device in devices} != {"cpu"}:
        return []
    narrow, wide = (matmul_gflops()[dtype] for dtype in ("bfloat16", "float32"))
    if narrow > SLOWER * wide:
        return []
    return [f"warning: config.model.dtype: bfloat16 is slower than float32 on this machine: {narrow:.0f} and "
            f"{wide:.0f} GFLOP/s; give float32"]  # fmt: skip


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
