"""A run folder: its files, its lock, and reading it back."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import tempfile
from typing import Any, NamedTuple

import numpy as np

from research import config as configs
from research import manifest
from research.checkpoint import read_best
from research.data import tokenize
from research.data.dataset import Dataset
from research.errors import UserError
from research.models import MODELS
from research.tasks import TASKS


class Run(NamedTuple):
    """A run folder, read."""

    folder: pathlib.Path
    config: Any  # ConfigDict
    step: int  # of the variables: the best
    model: Any  # Linen module
    variables: Any  # {"params": ..., collection: ...}, on the first device
    task: Any  # Task
    spec: Dataset  # what the data said of themselves; without the data
    tokenizer: Any  # research.data.tokenize.Tokenizer, where there is text
    result: dict | None  # result.json, once there is one

    def metrics(self):
        """The rows of metrics.jsonl, oldest first."""
        return read_rows(self.folder)


def load(folder):
    """Reads a run folder: configuration, model and its best variables.

    Raises:
        UserError: 2 where it is no run folder, 4 where no checkpoint of it can be read.
    """
    folder = as_folder(folder)
    config = read_config(folder)
    spec = read_spec(folder)
    step, variables = read_best(folder)
    model = MODELS[config.model.name](**configs.arguments("model", config))
    task = TASKS[config.task.name](spec, **configs.arguments("task", config))
    return Run(folder, config, step, model, variables, task, spec, spec.tokenizer, read_result(folder) or None)


def as_folder(workdir):
    """The path of a run folder.

    Raises:
        UserError: 2, for a URL.
    """
    if "://" in str(workdir):
        raise UserError(2, f"{workdir}: a URL; a run folder is on a disk of this machine, as runs/mnist")
    return pathlib.Path(workdir)


def read_config(folder):
    """The complete config of a run folder."""
    saved = read_saved(folder)
    if saved is None:
        raise UserError(2, f"{folder}: no run folder: it has no config.json")
    return configs.from_json(saved["config"])


def read_saved(folder):
    """config.json as it stands, {"format", "file", "size", "config"}; None where there is none."""
    path = as_folder(folder) / "config.json"
    saved = read_json(path)
    if saved is None:
        return None
    if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict) or saved.get("format") != 1:
        raise UserError(2, f"{path}: not a config of ours, of format 1")
    return saved


def read_spec(folder):
    """What the data of a run said of themselves, from its manifest: the data need not be here."""
    path = as_folder(folder) / "manifest.json"
    if not path.is_file():
        raise UserError(2, f"{folder}: no run folder: it has no manifest.json")
    tokenizer = read_tokenizer(folder)

    def spec(data):
        features = {field: (tuple(shape), np.dtype(dtype)) for field, (shape, dtype) in data["features"].items()}
        own = {"tokenizer": tokenizer, "sequences": tuple(data.get("sequences", ()))}
        own["parts"] = {name: spec(part) for name, part in data.get("parts", {}).items()}
        return Dataset(data["name"], features, data["examples"], None, data["classes"], tuple(data["labels"]), **own)

    try:
        return spec(read_json(path)[-1]["data"])
    except (TypeError, KeyError, IndexError, ValueError, AttributeError) as error:
        raise UserError(2, f"{path}: not a manifest of ours") from error


def read_tokenizer(folder):
    """The tokenizer that a run folder keeps; None where there is none.

    Raises:
        UserError: 3, for a file that is none, or is not the one that the run was trained with.
    """
    path = as_folder(folder) / "tokenizer.json"
    starts = read_json(path.with_name("manifest.json"))
    try:
        wanted = starts[-1]["data"].get("tokenizer") if starts else None
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise UserError(2, f"{path.with_name('manifest.json')}: not a manifest of ours") from error
    if wanted is None:
        return None
    tokenizer = tokenize.read(path)
    if tokenizer.digest != wanted:
        raise UserError(3, f"{path}: not the tokenizer that this run was trained with; put that one back")
    return tokenizer


def check(workdir, config, dataset):
    """Checks whether this config may be run in this folder; nothing is written.

    Args:
        dataset: research.data.Dataset of the config.

    Returns:
        the result of the finished run in the folder, else None.

    Raises:
        UserError: 2 for a run of another config or on other data, 5 for a folder that cannot be written.
    """
    folder = pathlib.Path(workdir)
    saved = read_saved(folder)
    if saved is not None:
        differing = configs.conflicts(configs.from_json(saved["config"]), config)
        if differing:
            check_data(folder, dataset, dataset.examples)  # of which the config has the sizes
            paths = "; ".join(f"config.{path} {there!r} there, {here!r} here" for path, there, here in differing)
            raise UserError(2, f"{folder}: holds the run of another config: {paths}; choose another --workdir")
    elif folder.is_dir():
        # What a process leaves that is killed before config.json is whole.
        begun = lambda name: name == "lock" or name.startswith("config.json")
        if not all(begun(child.name) for child in folder.iterdir()):
            raise UserError(2, f"{folder}: not empty, and no run folder; choose another --workdir")
    result = read_result(folder)
    if result.get("status") == "finished":
        if not {"metrics", "step", "best_step", "seconds"} <= set(result):
            raise UserError(2, f"{folder / 'result.json'}: not a result of ours; delete it to have it made again")
        return result
    check_data(folder, dataset, config.data.splits.values())
    for name, kind in (
        ("checkpoints", pathlib.Path.is_dir),
        ("tensorboard", pathlib.Path.is_dir),
        ("metrics.jsonl", pathlib.Path.is_file),
        ("log.txt", pathlib.Path.is_file),
    ):
        if (folder / name).exists() and not kind(folder / name):
            raise UserError(2, f"{folder / name}: not what a run folder has there; choose another --workdir")
    check_writable(folder)
    return None


def check_data(folder, dataset, splits):
    """Compares the fingerprints of the data with those in a run's manifest, if there is one.

    Args:
        folder: the run folder.
        dataset: research.data.Dataset.
        splits: split strings, whose base splits are compared; or None.

    Raises:
        UserError: 2, naming the split whose content has changed.
    """
    path = pathlib.Path(folder) / "manifest.json"
    try:
        starts = [start["data"] for start in read_json(path) or []]
        kept = [data for start in starts for data in (start, *start.get("parts", {}).values())]
        kept = [data for data in kept if data["name"] == dataset.name]
        sums = {split: known for data in kept for split, known in data.get("fingerprint", {}).items()}
        sizes = {split: n for data in kept for split, n in data["examples"].items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(2, f"{path}: not a manifest of ours") from error
    for split in dataset.bases(splits):
        n = dataset.examples[split]
        changed = f"it has {n} examples, before {sizes[split]}" if sizes.get(split, n) != n else ""
        if not changed and split in sums and dataset.fingerprint and dataset.fingerprint(split) != sums[split]:
            changed = "its content has changed"
        if changed:
            raise UserError(
                2, f"{folder}: the split {split} of {dataset.name} differs from the one that this run was started "
                f"with: {changed}; restore the data, or choose another --workdir"
            )  # fmt: skip


def check_writable(folder):
    """Raises the error of a folder that cannot be written, or be made.

    Raises:
        UserError: 5.
    """
    existing = folder
    while not existing.exists():
        existing = existing.parent
    # The mode too: to the superuser every folder is writable, a read-only one is meant to be left alone.
    if not existing.is_dir() or not os.access(existing, os.W_OK) or not existing.stat().st_mode & 0o222:
        raise UserError(5, f"{existing}: not a folder that can be written; choose another --workdir")


def is_begun(workdir):
    """Whether a run has been begun in this folder."""
    return (pathlib.Path(workdir) / "config.json").is_file()


@contextlib.contextmanager
def lock(workdir):
    """Makes the folder and holds its lock within; what was known of the folder before may no longer be so.

    Raises:
        UserError: 7 where another process holds it, 5 where it cannot be written.
    """
    folder = pathlib.Path(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(
            5, f"{error.filename or folder / 'lock'}: cannot be written: {error.strerror or error}"
        ) from error
    with file, _directory(folder) as directory:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _lock_directory(directory)
        except BlockingIOError:
            file.seek(0)
            owner = " ".join(file.read(100).split()) or "unknown (its lock file was deleted)"
            raise UserError(7, f"{folder}: being written by process {owner}") from None
        except OSError as error:
            raise UserError(5, f"{folder}: cannot be locked: {error.strerror}") from error
        try:
            file.truncate(0)
            file.write(f"{os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        except OSError as error:
            raise UserError(5, f"{folder / 'lock'}: cannot be written: {error.strerror}") from error
        yield folder


@contextlib.contextmanager
def _directory(folder):
    """Opens a directory; returns its file descriptor."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield number
    finally:
        os.close(number)


def _lock_directory(number):
    """Locks a directory, so that a run keeps its lock if the lock file is deleted."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # NFS does not lock directories
        return


def begin(folder, config, file, size, data, tokenizer=None, together=1):
    """Writes config.json, tokenizer.json and an entry of manifest.json; the lock is held, and `check` was passed.
    `together` runs share this process's time.

    Raises:
        UserError: 2 where another process has put another tokenizer there since, 5 where it cannot be written.
    """
    kept = read_tokenizer(folder)
    if kept is not None and tokenizer is not None and kept.digest != tokenizer.digest:
        raise UserError(2, f"{folder}: another process has begun this run since; the same command goes on with it")
    write_config(folder, config, file, size)
    if tokenizer is not None:
        write_text(folder / "tokenizer.json", tokenizer.json)
    starts = read_json(folder / "manifest.json") or []
    write_json(folder / "manifest.json", [*starts, manifest.entry(data, together)])


def write_config(folder, config, file, size):
    write_json(
        folder / "config.json", {"format": 1, "file": str(file), "size": size, "config": configs.to_json(config)}
    )


def read_json(path):
    """A JSON file's content; None where there is none.

    Raises:
        UserError: 2, where it is not JSON.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for a writer
            raise UserError(2, f"{path}: not a file; remove it")
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(2, f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(2, f"{path}: not JSON: {error}") from error


def read_result(folder):
    """Reads result.json; returns {} if there is none yet.

    Raises:
        UserError: 2, if it is not an object with a status.
    """
    path = pathlib.Path(folder) / "result.json"
    result = read_json(path)
    if result is None:
        return {}
    if not isinstance(result, dict) or not isinstance(result.get("status"), str):
        raise UserError(2, f"{path}: not the result of a run; delete it, and the same command writes it again")
    return result


def write_json(path, data):
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_text(path, text):
    """Written beside and renamed: a reader sees the old file or the new one."""
    beside = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=path.name, delete=False
        ) as file:
            beside = file.name
            file.write(text)
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except OSError as error:
        if beside is not None:
            pathlib.Path(beside).unlink(missing_ok=True)
        raise UserError(5, f"{path}: cannot be written: {error.strerror}") from error


def read_rows(folder):
    """metrics.jsonl as a list; a line that is no row, as one that was cut off in writing, is left out."""
    path = pathlib.Path(folder) / "metrics.jsonl"
    found = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and type(row.get("step")) is int and isinstance(row.get("split"), str):
            found.append(row)
    return found


def restore_rows(folder, step, text):
    """Restores metrics.jsonl as it was at a step. A file that does not start with these rows is moved to damaged/.

    Args:
        text: the rows up to the step, from its checkpoint; "" at step 0.

    Returns:
        lines for the log, on rows that were changed and on rows that are lost because there is no checkpoint.

    Raises:
        UserError: 5.
    """
    path = pathlib.Path(folder) / "metrics.jsonl"
    found = path.read_bytes() if path.is_file() else b""
    says = []
    if not found.startswith(text.encode()):
        says.append(f"{path}: differs from the rows in the checkpoint of step {step}; they were restored")
        if found:
            says[0] += ", and the file was moved to damaged/"
            (path.parent / "damaged").mkdir(exist_ok=True)
            os.replace(path, path.parent / "damaged" / path.name)
    elif step == 0 and (beyond := [row["step"] for row in read_rows(folder)]):
        says.append(f"{path}: has rows up to step {max(beyond)}, but there is no checkpoint: beginning again at step 0")
    write_text(path, text)
    return says
