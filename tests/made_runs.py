"""Run folders as training leaves them, without the training."""

import json

from conftest import make_config

from research import runs

RATE = "optimizer__learning_rate"
ACCURACIES = {0.1: (0.90, 0.92, 0.94), 0.01: (0.70, 0.72, 0.71), 0.001: (0.89, 0.95, 0.93)}
STATUSES = ("diverged", "failed", "stopped", "begun")


def make_run(
    folder,
    seed=0,
    accuracy=0.9,
    status="finished",
    file="configs/digits_cnn.py",
    start=(),
    validation=None,
    **overrides,
):
    """A run folder as training leaves it, without the training."""
    folder.mkdir(parents=True)
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    config = make_config(seed=seed, **overrides)
    runs.write_config(folder, config, file, "base")
    entry = {"command": ["train.py", f"--config.seed={seed}"], "commit": "c" * 40, "uncommitted": []}
    entry |= {"versions": {"jax": "1"}, "machine": "2 cores", "devices": ["cpu"], "data": {"name": "digits"}}
    runs.write_json(folder / "manifest.json", [entry | dict(start)])
    rows = [{"step": step, "split": "train", "loss": 8.0 / step + seed / 10} for step in (1, 2, 4, 8)]
    rows += [{"step": step, "split": "validation", "accuracy": accuracy - 1 / step / 9, "loss": 1.0} for step in (4, 8)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {"accuracy": accuracy, "loss": 1 - accuracy}
    judged = found if validation is None else found | {"accuracy": validation}
    result = {"status": status, "step": 8, "best_step": 8, "seconds": 61.0 + seed, "parameters": 5,
              "metrics": {"validation": judged, "test": found}}  # fmt: skip
    if status == "begun":
        return folder
    other = {"status": status, "reason": f"{status} of old age"}
    runs.write_json(folder / "result.json", result if status == "finished" else other)
    return folder


def make_rates(folder):
    """Three learning rates with three seeds each."""
    for rate, values in ACCURACIES.items():
        for seed, accuracy in enumerate(values):
            make_run(folder / f"{rate}_{seed}", seed, accuracy, **{RATE: rate})
    return folder


def make_mixed(folder):
    """Two seeds that finished; one each that diverged, failed, was stopped and is not finished; all of one config."""
    for seed, status in enumerate(("finished", "finished", *STATUSES)):
        make_run(folder / f"{seed}_{status}", seed, 0.9 + seed / 100, status)
    return folder
