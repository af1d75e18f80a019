"""20 Newsgroups, split by date, and what of its messages gives the group away rather than tells of it."""

import re

from research.data.dataset import changed, from_tfds
from research.data.text import labelled
from research.errors import pick

QUOTE = re.compile(r"(writes in|writes:|wrote:|says:|said:|^In article|^Quoted from|^\||^>)")


def without_headers(text):
    """What comes after the first empty line."""
    return text.partition("\n\n")[2]


def without_footers(text):
    """What comes before the last line that is empty or of hyphens, blank ends left out: behind it is a signature."""
    lines = text.strip().split("\n")
    last = next((i for i in range(len(lines) - 1, -1, -1) if not lines[i].strip().strip("-")), 0)
    return "\n".join(lines[:last]) if last else text


def without_quotes(text):
    """Without the lines that are quoted, or tell who is."""
    return "\n".join(line for line in text.split("\n") if not QUOTE.search(line))


# In this order, and by the rules of scikit-learn's fetch_20newsgroups, with whose figures they compare.
REMOVALS = {"headers": without_headers, "footers": without_footers, "quotes": without_quotes}


def without(text, remove):
    """A message without what `remove` names."""
    for name, function in REMOVALS.items():
        text = function(text) if name in remove else text
    return text


def messages(remove=()):
    """The data set of messages: text and label, without what `remove` names among REMOVALS."""
    for name in remove:
        pick(REMOVALS, name, "config.data.remove")

    raw = from_tfds("newsgroups20")
    if not remove:
        return raw
    change = lambda data: without(data.decode(errors="replace"), remove).encode()
    return changed(raw, "text", change, f"without-{'-'.join(sorted(remove))}")


def newsgroups20(
    *,
    remove: tuple[str, ...] = (),
    tokenizer: str = "bpe",
    vocabulary_size: int = 8000,
    min_count: int = 1,
    normalize: tuple[str, ...] = (),
    max_len: int = 64,
    buckets: tuple[int, ...] = (),
):
    """Messages to twenty newsgroups, each with its group; test is of a later time. Lang 1995.

    Args:
        remove: headers, footers, quotes: which of them are cut out of each message.
    """
    own = {"tokenizer": tokenizer, "vocabulary_size": vocabulary_size, "min_count": min_count, "normalize": normalize}
    return labelled(messages(remove), ("text",), **own, max_len=max_len, buckets=buckets)
