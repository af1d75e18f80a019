"""A small convolutional network on CIFAR-10 (Krizhevsky 2009): 167,562 parameters, SGD at 0.01, batch 32, 10 epochs.

    python -m experiments.train --config=configs/cifar10_cnn.py --workdir=runs/cifar10_cnn

size   hardware                 time   test accuracy, %: mean ± std (seeds)
base   2 cores (AMD EPYC)       4:12   64.12 ± 0.25 (3)
"""

from research.config import base, sized


def get_config(size="base"):
    config = base()
    config.data.name = "cifar10"
    config.data.batch_size = 32
    config.data.eval_batch_size = 500
    config.model = {
        "name": "cnn",
        "layers": ("conv32", "pool2", "conv64", "pool2", "dense64"),
        "padding": "VALID",
    }
    config.task.name = "classify_images"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.01
    config.train.epochs = 10.0
    config.train.steps_per_call = 8
    config.log.every_steps = 200
    cpu = {"train.epochs": 2}
    tiny = {
        "data.batch_size": 16,
        "data.eval_batch_size": 64,
        "data.splits.train": "train[:160]",
        "data.splits.validation": "train[160:200]",
        "data.splits.test": "test[:50]",
        "model.layers": "conv8,pool2,conv8,pool2,dense16",
        "train.epochs": 2,
        "train.steps_per_call": 3,
        "checkpoint.every_steps": 5,
        "log.every_steps": 5,
    }
    return sized(config, size, cpu=cpu, tiny=tiny)


def claims():
    return [{"size": "base", "metric": "accuracy"}]  # nothing is published of this network
