"""From words to the tags that a run thinks most likely."""

from typing import Any, NamedTuple

import jax
import numpy as np

from research.data.tags import by_word
from research.errors import UserError
from research.inference.prediction import examples, in_batches
from research.inference.translation import padded


class Sentence(NamedTuple):
    """Words that are to be tagged."""

    name: str
    words: list
    tokens: Any  # int32[T]
    places: Any  # int[N], of the words' first tokens
    tags: Any = None  # [N], where they are known


def read_texts(run, texts):
    """Texts as sentences, of words between blanks.

    Raises:
        UserError: 2, for one that is empty, or longer than the run's max_len.
    """
    sentences, longest = [text.split() for text in texts], run.spec.features["tokens"][0][0]
    found = []
    for text, words, (row, places) in zip(texts, sentences, by_word(run.tokenizer, sentences, longest)):
        if not words:
            raise UserError(2, f"--text: {text!r} is empty")
        if len(places) < len(words):
            told = f"the run reads at most {longest} tokens, which {len(places)} of them fill"
            raise UserError(2, f"--text: {len(words)} words; {told}")
        (tokens,) = padded(run, [row], "tokens", ["--text"])
        found.append(Sentence(text, words, tokens, np.array(places)))
    return found


def read_split(run, split):
    """The sentences of a split, in words as the tokenizer spells them, with their tags."""
    for name, example in examples(run, split):
        places, tokens = np.flatnonzero(example["tags"] >= 0), example["tokens"]
        words = [run.tokenizer.decode(ids) for ids in np.split(tokens, places)[1:]]
        yield Sentence(name, words, tokens, places, example["tags"][places])


def tags(run, sentences):
    """For each sentence {"input": name, "words": [{"word", "tag", "probability", "label": the true tag, where it is
    known}]}."""
    predict = jax.jit(lambda variables, batch: run.task.predict(run.model, variables, batch)["probabilities"])
    sentences, labels = list(sentences), run.spec.labels
    found = in_batches(lambda batch: predict(run.variables, batch), [{"tokens": one.tokens} for one in sentences])
    for sentence, probabilities in zip(sentences, found):
        told = probabilities[sentence.places]
        rows = [
            {"word": word, "tag": labels[row.argmax()], "probability": float(row.max())}
            for word, row in zip(sentence.words, told)
        ]
        if sentence.tags is not None:
            rows = [{**row, "label": labels[tag]} for row, tag in zip(rows, sentence.tags)]
        yield {"input": sentence.name, "words": rows}
