"""VGG-16 with batch normalisation, for small images, on CIFAR-10. Simonyan and Zisserman 2015 (arXiv:1409.1556).

python -m experiments.train --config=configs/cifar10_vgg.py --workdir=runs/cifar10_vgg
python -m experiments.train --config=configs/cifar10_vgg.py:cpu

size   hardware                 time   test accuracy, %: mean ± std (seeds)
cpu    2 cores (AMD EPYC)      11:02   79.71 (1†)
"""

from research.config import base, sized


def get_config(size="base"):
    config = base()
    config.data.name = "cifar10"
    config.data.batch_size = 128
    config.data.eval_batch_size = 500
    config.data.augment.crop_padding = 4
    config.data.augment.flip = True
    config.model = {"name": "vgg", "depth": 16, "norm": "batch"}
    config.task.name = "classify_images"
    config.task.mean = (0.4914, 0.4822, 0.4465)
    config.task.std = (0.2470, 0.2435, 0.2616)
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.05
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 2.0
    config.train.epochs = 100.0
    cpu = {"model.depth": 11, "model.width": 16, "train.epochs": 8, "log.every_steps": 50}
    tiny = {
        "data.batch_size": 16,
        "data.eval_batch_size": 64,
        "data.splits.train": "train[:64]",
        "data.splits.validation": "train[160:200]",
        "data.splits.test": "test[:50]",
        "model.depth": 11,
        "model.width": 4,
        "optimizer.warmup_epochs": 1,
        "train.epochs": 2,
        "checkpoint.every_steps": 5,
        "log.every_steps": 2,
    }
    return sized(config, size, cpu=cpu, tiny=tiny)


def claims():
    published = {"metric": "accuracy", "paper": "kuangliu/pytorch-cifar", "table": "README", "row": "VGG16"}
    return [
        {"size": "base", "published": 0.9264, "gpu": True, **published},
        {"size": "cpu", "metric": "accuracy"},  # a narrower network, for 15 minutes
    ]
