"""Word vectors beside gensim's: words a second of skip-gram on WikiText-2, in one interleaved run.

    pip install -r requirements-bench.txt
    python -m benchmarks.word_vectors --rounds=5

Both train 100 dimensions with window 5, 5 negatives and the same subsampling on the same words of the same blocks: ours
as configs/text_word2vec.py has it, reading through the project's own pipeline, gensim's C code with two workers. Each
is a process of its own that trains in turns, the others waiting. Words are those of the raw text. Writes
results/speed_word_vectors.json.
"""

import logging
import time

from benchmarks.turns import ROOT, compare

WORKLOADS = {"skipgram_1e-3": 1e-3, "skipgram_1e-4": 1e-4}  # name: subsample
WORKERS = 2


def ours(workload):
    """A function that trains for some seconds: -> words, seconds, seconds waiting for data."""
    import jax
    import numpy as np

    from experiments.command import process_settings
    from research import config as configs
    from research import sharding
    from research.data.batches import train_batches
    from research.randomness import run_key
    from research.setup import prepare, resolve
    from research.train_step import make_train_step

    process_settings()
    config, _, _ = configs.load_file(ROOT / "configs" / "text_word2vec.py")
    setup = prepare(*resolve(configs.override(config, {"task.subsample": WORKLOADS[workload]})))
    k, size = setup.config.train.steps_per_call, setup.config.data.batch_size
    whole = sharding.replicated(setup.mesh)
    state = jax.jit(setup.init, out_shardings=whole)(run_key(0))
    step = make_train_step(setup.model, setup.task, setup.optimizer, setup.config, setup.mesh)
    key = sharding.place(run_key(0), whole)
    batches = train_batches(setup.splits["train"], 0, size, 0, 10**9)

    def train(seconds):
        nonlocal state
        began, words, waited = time.perf_counter(), 0, 0.0
        while time.perf_counter() - began < seconds or not words:
            asked = time.perf_counter()
            drawn = [next(batches) for _ in range(k)]
            batch = {field: np.stack([b[field] for b in drawn]) for field in drawn[0]}
            waited += time.perf_counter() - asked
            state, metrics = step(state, batch, key, k)
            jax.block_until_ready(metrics)
            words += int((batch["targets"] != setup.dataset.tokenizer.pad).sum())
        return words, time.perf_counter() - began, waited

    return train


def gensim(workload):
    """The same of gensim's Word2Vec: whole passes over a fifth of the text, so that a turn is about as long."""
    from gensim.models import Word2Vec

    from research import config as configs

    logging.disable(logging.WARNING)  # it warns of each turn's learning rate
    config, _, _ = configs.load_file(ROOT / "configs" / "text_word2vec.py")
    texts = gensim_texts(config)
    own = {"vector_size": config.model.width, "window": config.task.window, "negative": config.task.negatives}
    model = Word2Vec(sg=1, sample=WORKLOADS[workload], min_count=config.data.min_count, workers=WORKERS, **own)
    model.build_vocab(texts)
    part = texts[: len(texts) // 5]
    words = sum(map(len, part))

    def train(seconds):
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds or not done:
            model.train(part, total_examples=len(part), epochs=1)
            done += words
        return done, time.perf_counter() - began, 0.0

    return train


def gensim_texts(config):
    """The words of a config's blocks, as gensim wants them; those that are too rare stay, so that both read as many."""
    from research import config as configs
    from research.data import open_dataset
    from research.data.text import from_tfds

    data = open_dataset(config.data.name, configs.arguments("data", config))
    raw, ids = from_tfds(config.data.name).open("train"), data.tokenizer
    words = [word for i in range(len(raw)) for word in ids.normalize(raw[i]["text"].decode()).split()]
    return [words[i : i + config.data.max_len] for i in range(0, len(words), config.data.max_len)]


if __name__ == "__main__":
    sides = {"ours": ours, "gensim": gensim}
    compare(__doc__, "benchmarks.word_vectors", sides, WORKLOADS, "speed_word_vectors.json", "words")
