"""How fast MNIST is read: batches gathered in memory, and streamed with decoding, by one process.

python -m benchmarks.reading
"""

import time

from research.data import DATASETS
from research.data.batches import open_split, train_batches


def rate(limit, batches, batch_size=256, workers=0):
    """Examples a second."""
    split = open_split(DATASETS["mnist"](), "train", "train", limit, workers)
    stream = train_batches(split, 0, batch_size, 0, batches + 1)
    next(stream)
    began = time.perf_counter()
    for _ in stream:
        pass
    return batches * batch_size / (time.perf_counter() - began)


if __name__ == "__main__":
    print(f"in memory  {rate(2**31, 4000):12,.0f} examples/s")
    print(f"streamed   {rate(0, 100):12,.0f} examples/s")
