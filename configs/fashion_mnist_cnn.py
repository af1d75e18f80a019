"""A small convolutional network on Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747).

    python -m experiments.train --config=configs/fashion_mnist_cnn.py --workdir=runs/fashion_mnist_cnn

Its README lists 91.6 % for two convolutions with pooling.

size   hardware                 time   test accuracy, %: mean ± std (seeds)
base   2 cores (AMD EPYC)       4:24   92.30 ± 0.14 (3)  at least 91.6: met, p = 0.007
"""

from research.config import base, sized


def get_config(size="base"):
    config = base()
    config.data.name = "fashion_mnist"
    config.data.batch_size = 64
    config.data.eval_batch_size = 500
    config.data.augment.flip = True
    config.model = {
        "name": "cnn",
        "layers": ("conv32", "pool2", "conv64", "pool2", "dense128"),
        "padding": "SAME",
        "dropout": 0.3,
    }
    config.task.name = "classify_images"
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.train.epochs = 12.0
    config.train.steps_per_call = 8
    cpu = {"train.epochs": 4}
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
    published = {"paper": "Xiao et al. 2017, README", "table": "Benchmark", "row": "2 Conv+pooling"}
    return [{"size": "base", "metric": "accuracy", "published": 0.916, **published}]
