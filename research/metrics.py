"""From sums to numbers: the one place where a sum is divided by its count."""

import math

from research.errors import UserError


def _exp(nats):
    return math.exp(nats) if nats < 709 else math.inf  # beyond that Python raises


# Metrics that are a function of a mean: their sums are of nats.
OF_MEAN = {"perplexity": _exp, "bits_per_byte": lambda nats: nats / math.log(2)}
LOWER_IS_BETTER = ("loss", "perplexity", "bits_per_byte")
RATES = ("accuracy", "top5_accuracy", "exact_match", "f1", "precision", "recall")  # in [0, 1]; shown in %
HIGHER_IS_BETTER = (*RATES, "bleu", "chrf")
WORDS = {"bleu": "BLEU", "chrf": "chrF", "f1": "F1"}


def add(total, sums):
    """Adds {name: (sum, count)} up in float64."""
    total = dict(total)
    for name, (value, count) in sums.items():
        before = total.get(name, (0.0, 0.0))
        total[name] = (before[0] + float(value), before[1] + float(count))
    return total


def means(total):
    """{name: sum / count, or its function in OF_MEAN}; a name that nothing counted towards is left out."""
    same = lambda mean: mean
    return {name: OF_MEAN.get(name, same)(value / count) for name, (value, count) in sorted(total.items()) if count > 0}


def check_finite(values, where):
    """Nothing but finite numbers goes into a log or a result.

    Args:
        values: {name: float}.
        where: what the error begins with: the run, the step, the split.

    Raises:
        UserError: 6.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise UserError(
                6,
                f"{where}: {name} is {value}; a lower config.optimizer.learning_rate or a config.optimizer.clip_norm "
                "may help",
            )


def is_better(value, best, direction):
    """Whether a value beats the best so far, strictly; anything beats None, and nan beats nothing."""
    if best is None:
        return value == value
    return value > best if direction == "max" else value < best


def direction_of(name):
    """Returns "min" or "max"; None for an unknown metric. A known name may have a prefix, as in `masked_loss`."""
    for direction, known in (("min", LOWER_IS_BETTER), ("max", HIGHER_IS_BETTER)):
        if name in known or name.endswith(tuple(f"_{metric}" for metric in known)):
            return direction
    return None


def get(values, name, field):
    """Returns a metric of an evaluation.

    Args:
        values: {name: float}.
        field: the field of the config that names the metric, for the error.

    Raises:
        UserError: 3, if no example counted towards it, so that it has no value.
    """
    if name not in values:
        raise UserError(
            3, f"{field}: no example of validation counts towards {name}; evaluated are {', '.join(values)}"
        )
    return values[name]


def watched_direction(settings):
    """Returns the direction of the metric that early stopping watches; None if it is off, or the direction unknown.

    Args:
        settings: a config, or any mapping with its sections `eval` and `train`.
    """
    watched, judged = settings["train"]["early_stopping"]["metric"], settings["eval"]
    if watched is None:
        return None
    return judged["direction"] if watched == judged["metric"] else direction_of(watched)


def shown(name):
    """How a metric is written for people: its words, its unit ("" of none), and by what its value is multiplied."""
    words = WORDS.get(name, name.replace("_", " "))
    if name.endswith(RATES):
        return words, "%", 100.0
    return words, "nats" if name.endswith("loss") else "", 1.0
