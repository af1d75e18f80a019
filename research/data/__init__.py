"""Data sets by name: DATASETS[name](**arguments) -> Dataset. A new one is a function, or a line where TFDS has it."""

import dataclasses
from functools import partial

from research.data import sentences
from research.data.cooccurrences import cooccurring
from research.data.dataset import from_tfds, with_shuffled_train
from research.data.mixture import mixture
from research.data.newsgroups import newsgroups20
from research.data.prepare import digits, stdlib
from research.data.questions import questions, xquad
from research.data.tags import tagged
from research.data.text import addition, labelled, own_text, pairs, parallel, running
from research.errors import UserError, users_code

DATASETS = {
    "digits": digits,
    "mnist": partial(from_tfds, "mnist"),
    "fashion_mnist": partial(from_tfds, "fashion_mnist"),
    "cifar10": partial(from_tfds, "cifar10"),
    "addition": addition,
    "parallel": parallel,
    "mixture": mixture,
    "multi30k": partial(pairs, "multi30k", "de", "en"),
    "newsgroups20": newsgroups20,
    "glue/rte": partial(labelled, "glue/rte", ("sentence1", "sentence2")),
    "glue/sst2": partial(labelled, "glue/sst2", ("sentence",)),
    "sentences": sentences.own_sentences,
    "stdlib": partial(running, stdlib, "text"),
    "text": own_text,
    "tiny_shakespeare": partial(running, "tiny_shakespeare", "text"),
    "wikitext2": partial(running, "wikitext2", "text"),
    "wikitext2_sentences": partial(sentences.sentence_pairs, sentences.wikitext2, "text"),
    "wikitext2_cooccurrences": partial(cooccurring, "wikitext2", "text"),
    "squad/v1.1": partial(questions, partial(from_tfds, "squad/v1.1")),
    "wnut_17": partial(tagged, "wnut_17"),
    "xquad/en": partial(questions, xquad),
}


def open_dataset(name, arguments, tokenizer=None):
    """DATASETS[name](**arguments), which remembers how it was opened.

    Args:
        tokenizer: the one of an earlier run, in place of the one that the arguments name.
    """
    if tokenizer is not None:
        arguments = {**arguments, "tokenizer": tokenizer}
    with users_code(f"config.data.name: {name}", __file__):
        dataset = _completed(DATASETS[name](**arguments))
    if "tokenizer" in arguments:  # a worker process takes this very one
        arguments = {**arguments, "tokenizer": dataset.tokenizer}
    return dataclasses.replace(dataset, origin=(name, arguments))


def _completed(dataset):
    """With a name for each class, and a random order of train where its own is none.

    Raises:
        UserError: 3, for what a data set says of itself and cannot be.
    """
    if "image" in dataset.features and len(dataset.features["image"][0]) != 3:
        raise UserError(
            3,
            f"data set {dataset.name}: images are declared as {tuple(dataset.features['image'][0])}; height, width and "
            "channels are wanted, as (28, 28, 1)",
        )
    if "image" in dataset.features:
        dataset = dataclasses.replace(dataset, augmented={"image": ()})
    labels = tuple(dataset.labels) or tuple(map(str, range(dataset.classes or 0)))
    if len(labels) != (dataset.classes or 0):
        raise UserError(3, f"data set {dataset.name}: {len(labels)} labels for {dataset.classes} classes")
    dataset = dataclasses.replace(dataset, labels=labels)
    return dataset if dataset.shuffled or "train" not in dataset.examples else with_shuffled_train(dataset)
