"""Training steps of the MNIST and CIFAR-10 networks beside PyTorch's and Keras', in one interleaved run.

    pip install -r requirements-bench.txt
    python -m benchmarks.images --rounds=9

Each side of each workload is a process of its own that trains in turns of a second, the others waiting. Ours reads
real data through the project's own pipeline; the peers have a batch in memory. All compute in float32 on all cores with
their defaults: PyTorch eager with the fused optimizer, in its default layout and in channels_last; Keras on TensorFlow,
where that is installed (`pip install tensorflow`), by its compiled train_step; ours with the settings named in
WORKLOADS, which change no number beyond rounding. Writes results/speed_images.json, from which
`make results` makes README's table.
"""

from benchmarks.turns import again, compare, ours

WORKLOADS = {  # name: config file, batch size, settings of ours
    "mnist_64": ("mnist_cnn", 64, {"train.steps_per_call": 8}),
    "mnist_256": ("mnist_cnn", 256, {"train.steps_per_call": 4, "train.microbatches": 4}),
    "cifar10_32": ("cifar10_cnn", 32, {"train.steps_per_call": 8}),
    "cifar10_256": ("cifar10_cnn", 256, {"train.steps_per_call": 4, "train.microbatches": 8}),
}


SHAPES = {"mnist_cnn": (28, 28, 1), "cifar10_cnn": (32, 32, 3)}


def ours_on_images(name, batch_size, settings):
    settings = {"data.batch_size": batch_size, **settings}
    return ours(name, settings, lambda setup, batch: setup.config.train.steps_per_call * batch_size)


def torch(name, batch_size, channels_last):
    """The same network and optimizer in PyTorch eager, on one batch in memory."""
    import torch
    from torch import nn

    conv, pool = lambda i, o: [nn.Conv2d(i, o, 3), nn.ReLU()], [nn.MaxPool2d(2)]
    if name == "mnist_cnn":
        body, flat = [*conv(1, 32), *pool, *conv(32, 64), *pool, *conv(64, 64)], 576
    else:
        body, flat = [*conv(3, 32), *pool, *conv(32, 64), *pool], 2304
    model = nn.Sequential(*body, nn.Flatten(), nn.Linear(flat, 64), nn.ReLU(), nn.Linear(64, 10))
    channels, *sides = SHAPES[name][::-1]
    images, labels = torch.rand(batch_size, channels, *sides), torch.randint(0, 10, (batch_size,))
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    parameters = model.parameters()
    adam = name == "mnist_cnn"
    optimizer = torch.optim.Adam(parameters, fused=True) if adam else torch.optim.SGD(parameters, lr=0.01, fused=True)

    def train():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return again(train, batch_size)


def keras(name, batch_size):
    """The same network and optimizer in Keras on TensorFlow, by its own compiled train_step, on one batch in memory."""
    import keras
    import tensorflow as tf

    layers = keras.layers
    conv, pool = lambda n: layers.Conv2D(n, 3, activation="relu"), layers.MaxPooling2D
    body = [conv(32), pool(), conv(64), pool(), *([conv(64)] if name == "mnist_cnn" else [])]
    dense = [layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dense(10)]
    model = keras.Sequential([layers.Input(SHAPES[name]), *body, *dense])
    adam = name == "mnist_cnn"
    optimizer = keras.optimizers.Adam(1e-3) if adam else keras.optimizers.SGD(0.01)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = tf.random.uniform((batch_size, *SHAPES[name]))
    labels = tf.random.uniform((batch_size,), maxval=10, dtype=tf.int32)
    step = tf.function(lambda: model.train_step((images, labels)))

    return again(step, batch_size)


SIDES = {
    "ours": lambda workload: ours_on_images(*WORKLOADS[workload]),
    "torch": lambda workload: torch(*WORKLOADS[workload][:2], channels_last=False),
    "torch_channels_last": lambda workload: torch(*WORKLOADS[workload][:2], channels_last=True),
    "keras": lambda workload: keras(*WORKLOADS[workload][:2]),
}
NEEDS = {"torch": "torch", "torch_channels_last": "torch", "keras": "tensorflow"}

if __name__ == "__main__":
    compare(__doc__, "benchmarks.images", SIDES, WORKLOADS, "speed_images.json", "examples", NEEDS)
