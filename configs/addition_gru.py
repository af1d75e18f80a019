"""Sums of two numbers of up to three digits, "123+45" to "168", by a GRU encoder and decoder on characters.

Zaremba and Sutskever 2014 (arXiv:1410.4615), section 4, here with attention (Luong et al. 2015). No pair of numbers
that is tested was seen in training, in either order.

python -m experiments.train --config=configs/addition_gru.py --workdir=runs/addition_gru
python -m experiments.train --config=configs/addition_gru.py:cpu

size   hardware                 time   test exact match, %: mean ± std (seeds)
cpu    1 core of 2 (AMD EPYC)   9:21   99.65 ± 0.21 (3)
"""

from research.config import base, sized
from research.studies.sweep import axis, product


def get_config(size="base"):
    config = base()
    config.data.name = "addition"
    config.data.batch_size = 128
    config.data.eval_batch_size = 1000
    config.model = {
        "name": "seq2seq",
        "cell": "gru",
        "layers": 1,
        "width": 128,
        "embedding": 128,
        "bidirectional": True,
        "attention": "multiplicative",
    }
    config.task.name = "translate"
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 5e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 0.5
    config.optimizer.clip_norm = 1.0
    config.train.epochs = 20.0
    config.train.steps_per_call = 4
    config.eval.every_epochs = 5.0
    config.eval.metric = "exact_match"
    config.log.every_steps = 100
    tiny = {
        "data.batch_size": 16,
        "data.splits.train": "train[:160]",
        "data.splits.validation": "validation[:32]",
        "data.splits.test": "test[:32]",
        "model.width": 16,
        "model.embedding": 16,
        "train.epochs": 2,
        "eval.every_epochs": 1,
        "checkpoint.every_steps": 5,
        "log.every_steps": 5,
    }
    return sized(config, size, cpu={}, tiny=tiny)


def sweep_cell():
    return axis("model.cell", ("rnn", "lstm", "gru"))


def sweep_attention():
    return axis("model.attention", ("none", "additive", "multiplicative"))


def sweep_digits():
    """Longer numbers, by two layers and with a tenth of the inputs the model's own (Bengio et al. 2015)."""
    return product(axis("data.digits", (2, 3, 4, 5)), [{"model.layers": 2, "task.sampling_rate": 0.1}])


def claims():
    return [{"size": "cpu", "metric": "exact_match"}]  # nothing is published of this form
