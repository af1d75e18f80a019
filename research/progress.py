"""Progress: what the loop knows beside the state. A checkpoint holds both, and a resume needs both."""

import numpy as np

from research import metrics


def no_progress():
    """Returns the progress of a run at step 0; JSON."""
    return {
        "step": 0, "best": None, "best_step": None, "watched": None, "patience": 0, "stopped_early": False,
        "validation": None,  # metrics at this very step, where it was evaluated
        "due": False,  # whether an evaluation at this step is still to be made: a signal broke it off
        "rows": "",  # metrics.jsonl
        "window": {}, "seconds": 0.0, "train_seconds": 0.0, "timed_examples": 0, "wait_seconds": 0.0,
        "first_step_seconds": None,
    }  # fmt: skip


def record(step, count, measured, progress, log, every):
    """Adds what steps step + 1 ... step + count measured to the sums of the next row; writes it, if it is due.

    Args:
        measured: {name: (sum, count)} of a dispatch.
        every: steps that a row sums up.

    Raises:
        UserError: 6, if a number is not finite.
    """
    measured = {name: np.reshape(np.stack(pair), (2, -1)) for name, pair in measured.items()}
    for i in range(count):
        step += 1
        sums = {name: (float(pair[0, i]), float(pair[1, i])) for name, pair in measured.items()}
        where = f"{log.path.parent}: step {step}"
        metrics.check_finite({name: sums[name][0] for name in ("loss", "gradient_norm", "update_norm")}, where)
        progress["window"] = metrics.add(progress["window"], sums)
        if step % every == 0 or step == log.total:
            values = metrics.means(progress["window"])
            metrics.check_finite(values, where)
            log.row(step, "train", values)
            progress["window"] = {}


def judge(values, progress, config):
    """Records whether an evaluation is the best so far, and whether the run stops early."""
    progress["validation"], progress["due"] = values, False
    judged, watched = config.eval.metric, config.train.early_stopping.metric
    value = metrics.get(values, judged, "config.eval.metric")
    if metrics.is_better(value, (progress["best"] or {}).get(judged), config.eval.direction):
        progress["best"], progress["best_step"] = values, progress["step"]
    if watched is not None:
        value = metrics.get(values, watched, "config.train.early_stopping.metric")
        if metrics.is_better(value, progress["watched"], metrics.watched_direction(config)):
            progress["watched"], progress["patience"] = value, 0
        else:
            progress["patience"] += 1
        progress["stopped_early"] = progress["patience"] >= config.train.early_stopping.patience
