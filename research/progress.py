"""Progress of a run: the loop's data besides the train state, saved with it as JSON."""

import numpy as np

from research import metrics
from research.errors import UserError


def no_progress():
    """Returns the progress of a run at step 0; JSON."""
    return {
        "step": 0, "best": None, "best_step": None, "watched": None, "patience": 0, "stopped_early": False,
        "validation": None,  # metrics at this very step, where it was evaluated
        "due": False,  # whether an evaluation at this step is still to be made: a signal broke it off
        "rows": "",  # metrics.jsonl
        "skipped": 0, "skipped_in_a_row": 0,  # updates, with train.on_nonfinite=skip
        "good": 0,  # the last step whose parameters have given finite numbers
        "rollbacks": 0, "scheduled": False,  # whether an uninterrupted run saves this step, too
        "window": {}, "seconds": 0.0, "train_seconds": 0.0, "timed_examples": 0, "wait_seconds": 0.0,
        "first_step_seconds": None,
    }  # fmt: skip


def record(step, count, measured, progress, log, config):
    """Adds the metrics of steps step + 1 ... step + count to the sums for the next row; writes the row if it is due.

    Args:
        measured: {name: (sum, count)} of a dispatch.

    Raises:
        UserError: 6, if a number is not finite, or too many updates in a row were skipped.
    """
    measured = {name: np.reshape(np.stack(pair), (2, -1)) for name, pair in measured.items()}
    for i in range(count):
        step += 1
        sums = {name: (float(pair[0, i]), float(pair[1, i])) for name, pair in measured.items()}
        where = f"{log.path.parent}: step {step}"
        metrics.check_finite({name: sums[name][0] for name in ("loss", "gradient_norm", "update_norm")}, where)
        progress["good"] = step - 1
        _count_skipped(sums.get("skipped", (0.0, 1.0))[0] > 0, progress, config.train.nonfinite_limit, where)
        progress["window"] = metrics.add(progress["window"], sums)
        if step % config.log.every_steps == 0 or step == log.total:
            values = metrics.means(progress["window"])
            metrics.check_finite(values, where)
            log.row(step, "train", values)
            progress["window"] = {}


def _count_skipped(skipped, progress, limit, where):
    progress["skipped"] += skipped
    progress["skipped_in_a_row"] = progress["skipped_in_a_row"] + 1 if skipped else 0
    if progress["skipped_in_a_row"] > limit:
        raise UserError(
            6, f"{where}: the last {limit + 1} updates were not finite and were skipped; config.train.nonfinite_limit "
            f"allows {limit}; a lower config.optimizer.learning_rate or a config.optimizer.clip_norm may help"
        )  # fmt: skip


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
