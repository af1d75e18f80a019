"""Training steps of the MNIST and CIFAR-10 networks beside PyTorch's, in one interleaved run.

    pip install -r requirements-bench.txt
    python -m benchmarks.images --rounds=9

Each side of each workload is a process of its own that trains in turns of a second, the others waiting; ratios are of
medians. Ours reads real data through the project's own pipeline; PyTorch has its batch in memory. Both compute in
float32 on all cores with their defaults: PyTorch eager with the fused optimizer, in its default layout and in
channels_last; ours with the settings named in WORKLOADS, which change no number beyond rounding. Writes
results/speed_images.json, from which `python -m research.studies.tables` makes README's table.
"""

import time

from benchmarks.turns import compare, ours

WORKLOADS = {  # name: config file, batch size, settings of ours
    "mnist_64": ("mnist_cnn", 64, {"train.steps_per_call": 8}),
    "mnist_256": ("mnist_cnn", 256, {"train.steps_per_call": 4, "train.microbatches": 8}),
    "cifar10_32": ("cifar10_cnn", 32, {"train.steps_per_call": 8}),
    "cifar10_256": ("cifar10_cnn", 256, {"train.steps_per_call": 4, "train.microbatches": 8}),
}


def ours_on_images(name, batch_size, settings):
    settings = {"data.batch_size": batch_size, **settings}
    return ours(name, settings, lambda setup, batch: setup.config.train.steps_per_call * batch_size)


def torch(name, batch_size, channels_last):
    """The same network and optimizer in PyTorch eager, on one batch in memory."""
    import torch
    from torch import nn

    def block(*layers):
        return nn.Sequential(*[part for layer in layers for part in (layer if isinstance(layer, tuple) else (layer,))])

    conv = lambda i, o: (nn.Conv2d(i, o, 3), nn.ReLU())
    if name == "mnist_cnn":
        shape, body, flat = (
            (1, 28, 28),
            (conv(1, 32), nn.MaxPool2d(2), conv(32, 64), nn.MaxPool2d(2), conv(64, 64)),
            576,
        )
    else:
        shape, body, flat = (3, 32, 32), (conv(3, 32), nn.MaxPool2d(2), conv(32, 64), nn.MaxPool2d(2)), 2304
    model = block(*body, nn.Flatten(), nn.Linear(flat, 64), nn.ReLU(), nn.Linear(64, 10))
    images, labels = torch.rand(batch_size, *shape), torch.randint(0, 10, (batch_size,))
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    parameters = model.parameters()
    adam = name == "mnist_cnn"
    optimizer = torch.optim.Adam(parameters, fused=True) if adam else torch.optim.SGD(parameters, lr=0.01, fused=True)

    def train(seconds):
        began, examples = time.perf_counter(), 0
        while time.perf_counter() - began < seconds or not examples:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            examples += batch_size
        return examples, time.perf_counter() - began, 0.0

    return train


SIDES = {
    "ours": lambda workload: ours_on_images(*WORKLOADS[workload]),
    "torch": lambda workload: torch(*WORKLOADS[workload][:2], channels_last=False),
    "torch_channels_last": lambda workload: torch(*WORKLOADS[workload][:2], channels_last=True),
}

if __name__ == "__main__":
    compare(__doc__, "benchmarks.images", SIDES, WORKLOADS, "speed_images.json", "examples")
