"""Word vectors beside gensim's: words a second of skip-gram on WikiText-2, in one interleaved run.

    pip install -r requirements-bench.txt
    python -m benchmarks.word_vectors --rounds=5

Both train 100 dimensions with window 5, 5 negatives and the same subsampling on the same words of the same blocks: ours
as configs/text_word2vec.py has it, reading through the project's own pipeline, gensim's C code with two workers. Each
is a process of its own that trains in turns, the others waiting. Words are those of the raw text. Writes
results/speed_word_vectors.json.
"""

import logging

from benchmarks.turns import ROOT, again, compare, ours

WORKLOADS = {"skipgram_1e-3": 1e-3, "skipgram_1e-4": 1e-4}  # name: subsample
WORKERS = 2


def ours_on_words(workload):
    def count(setup, batch):
        return int((batch["targets"] != setup.dataset.tokenizer.pad).sum())

    return ours("text_word2vec", {"task.subsample": WORKLOADS[workload]}, count)


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

    def train():
        model.train(part, total_examples=len(part), epochs=1)

    return again(train, words)


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
    sides = {"ours": ours_on_words, "gensim": gensim}
    compare(
        __doc__, "benchmarks.word_vectors", sides, WORKLOADS, "speed_word_vectors.json", "words", {"gensim": "gensim"}
    )
