"""A small convolutional network on scikit-learn's handwritten digits: 1,797 scans of 8x8 (Alpaydin and Kaynak 1998).

    python -m experiments.train --config=configs/digits_cnn.py --workdir=runs/digits_cnn

size   hardware                 time   test accuracy, %: mean ± std (seeds)
base   2 cores (AMD EPYC)       0:05   98.7 ± 0.4 (3)
"""

from research.config import base, sized
from research.studies.sweep import axis, choice, log_uniform, sample, together, uniform


def get_config(size="base"):
    config = base()
    config.data.name = "digits"
    config.data.batch_size = 64
    config.data.augment.crop_padding = 1
    config.data.augment.rotation = 10.0
    config.model = {
        "name": "cnn",
        "layers": ("conv32", "conv64", "pool2", "dense128"),
        "padding": "SAME",
        "dropout": 0.3,
    }
    config.task.name = "classify_images"
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 1.0
    config.train.epochs = 30.0
    config.eval.every_epochs = 2.0
    config.eval.metric = "loss"  # 143 images: too few for accuracy to tell two checkpoints apart
    config.log.every_steps = 20
    tiny = {
        "data.augment.crop_padding": 0,
        "data.augment.rotation": 0.0,
        "data.batch_size": 16,
        "data.splits.train": "train[:160]",
        "data.splits.validation": "train[160:200]",
        "data.splits.test": "test[:50]",
        "model.layers": "conv8,pool2,dense16",
        "model.dropout": 0.0,
        "train.epochs": 3,
        "eval.every_epochs": 1,
        "checkpoint.every_steps": 5,
        "log.every_steps": 5,
    }
    return sized(config, size, cpu={}, tiny=tiny)


def sweep_model():
    """Whether convolutions are worth it on 8x8 pixels."""
    return [{}, {"model.name": "mlp", "model.widths": (256, 256), "model.dropout": 0.3}]


def sweep_rate():
    return axis("optimizer.learning_rate", (5e-4, 1e-3, 2e-3, 4e-3, 8e-3))


def sweep_batch():
    """The rate in proportion to the batch (Goyal et al. 2017, section 2.1)."""
    return together(axis("data.batch_size", (32, 64, 128)), axis("optimizer.learning_rate", (1e-3, 2e-3, 4e-3)))


def sweep_random():
    """Twenty points at random (Bergstra and Bengio 2012)."""
    space = {
        "optimizer.learning_rate": log_uniform(3e-4, 3e-2),
        "model.dropout": uniform(0.0, 0.6),
        "data.batch_size": choice(32, 64, 128),
    }
    return sample(20, space)


def search_space():
    return {
        "optimizer.learning_rate": {"low": 3e-4, "high": 3e-2, "log": True},
        "model.dropout": {"low": 0.0, "high": 0.6},
    }


def claims():
    return [{"size": "base", "metric": "accuracy"}]  # nothing is published of these 1,797 in this split
