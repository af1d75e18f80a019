"""ResNet-18 with a stem for small images on CIFAR-10, by a modern recipe. He et al. 2016 (arXiv:1512.03385).

python -m experiments.train --config=configs/cifar10_resnet.py --workdir=runs/cifar10_resnet
python -m experiments.train --config=configs/cifar10_resnet.py:cpu

size   hardware                 time   test accuracy, %: mean ± std (seeds)
cpu    2 cores (Intel(R) Xeon(R) Processor)   9:02   77.73 (1†)
"""

from research.config import base, sized


def get_config(size="base"):
    config = base()
    config.data.name = "cifar10"
    config.data.batch_size = 128
    config.data.eval_batch_size = 500
    config.data.augment.crop_padding = 4
    config.data.augment.flip = True
    config.model = {"name": "resnet", "depth": 18, "stem": "small", "norm": "batch"}
    config.task.name = "classify_images"
    config.task.label_smoothing = 0.1
    config.task.mean = (0.4914, 0.4822, 0.4465)
    config.task.std = (0.2470, 0.2435, 0.2616)
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 2.0
    config.train.epochs = 60.0
    cpu = {"model.depth": 10, "model.width": 16, "train.epochs": 6, "log.every_steps": 50}
    tiny = {
        "data.batch_size": 16,
        "data.eval_batch_size": 64,
        "data.splits.train": "train[:64]",
        "data.splits.validation": "train[160:200]",
        "data.splits.test": "test[:50]",
        "model.depth": 10,
        "model.width": 4,
        "optimizer.warmup_epochs": 1,
        "train.epochs": 2,
        "checkpoint.every_steps": 5,
        "log.every_steps": 2,
    }
    return sized(config, size, cpu=cpu, tiny=tiny)


def sweep_norm():
    return [{"model.norm": norm} for norm in ("batch", "group", "none")]


def sweep_augment():
    """What else than crops and flips helps: zoom, a hole (DeVries and Taylor 2017), mixtures (Zhang et al. 2018)."""
    given = [{}, {"scale": 0.2}, {"cutout": 16}, {"mixup": 0.2}]
    return [{f"data.augment.{name}": value for name, value in one.items()} for one in given]


def claims():
    published = {"metric": "accuracy", "paper": "kuangliu/pytorch-cifar", "table": "README", "row": "ResNet18"}
    return [
        {"size": "base", "published": 0.9302, "gpu": True, **published},
        {"size": "cpu", "metric": "accuracy"},  # a narrower network, for 15 minutes
    ]
