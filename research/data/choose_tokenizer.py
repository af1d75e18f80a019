"""Which tokenizer a data set of text is read with: one that is given, read from a file, or trained on its train."""

import hashlib
import itertools

import numpy as np

from research.data import hub, tokenize, train_tokenizer
from research.data.cache import cached
from research.data.tokenize import Tokenizer
from research.data.tokens import pieces
from research.errors import UserError

ASK = object()  # in place of a tokenizer: which texts one would be trained on, see `source_of`


class _Asked(Exception):
    """Has the answer to ASK as its argument."""


def source_of(builder, arguments):
    """What a data set's tokenizer would be trained on: (raw Dataset, its fields, what is read for the end of a line).

    Args:
        builder: one of DATASETS, of text.
        arguments: its own, but for the tokenizer.
    """
    try:
        builder(**arguments, tokenizer=ASK)
    except _Asked as asked:
        return asked.args[0]
    raise AssertionError(f"{builder} chose no tokenizer")


def tokenizer_of(given, raw, fields, vocabulary_size, min_count, normalize, newline="\n"):
    """The Tokenizer that is given, read, or trained on these fields of train; a trained one is cached."""
    if given is ASK:
        raise _Asked((raw, fields, newline))
    return shared_tokenizer(given, [(raw, fields, newline)], vocabulary_size, min_count, normalize)


def shared_tokenizer(given, sources, vocabulary_size, min_count, normalize):
    """The same, trained on several data sets; see `source_of`."""
    if isinstance(given, Tokenizer):
        return given

    def texts_of(raw, field, newline):
        return (text.replace("\n", newline) for text, _ in pieces(raw, "train", field, {}))

    class Texts:  # gone through anew each time, so that no one need hold them
        def __iter__(self):
            each = (texts_of(raw, field, newline) for raw, fields, newline in sources for field in fields)
            return itertools.chain.from_iterable(each)

    if given not in train_tokenizer.KINDS and (given.endswith(".json") or "/" in given or given.startswith(hub.PREFIX)):
        tokenizer = tokenize.read(given)
        for raw, fields, newline in sources:
            first = [text for field in fields for text in itertools.islice(texts_of(raw, field, newline), 256)]
            _check_known(tokenizer, given, raw, first)
        return tokenizer

    def make():
        trained = train_tokenizer.train(Texts(), given, vocabulary_size, min_count, normalize)
        return {"json": np.frombuffer(trained.json.encode(), np.uint8)}, {}

    known, fields, newlines = zip(*((raw.fingerprint("train"), fields, newline) for raw, fields, newline in sources))
    parts = (*known, given, *fields, vocabulary_size, min_count, normalize, list(newlines))
    arrays, _ = cached(f"tokenizer-{digest(*parts)}", make)
    return Tokenizer(arrays["json"].tobytes().decode())


def _check_known(tokenizer, path, raw, texts):
    """Raises the error of a tokenizer to which more than half of the first texts' tokens are unknown."""
    ids = np.concatenate([np.array(row, np.int32) for row in tokenizer.encode(texts)])
    unknown = int((ids == tokenizer.unknown).sum())
    if 2 * unknown > len(ids):
        raise UserError(
            3,
            f"config.data.tokenizer: {path} does not know {unknown} of the first {len(ids)} tokens of {raw.name}: "
            "it was trained on other text, or with another data.normalize",
        )


def with_ends(tokenizer):
    """The tokenizer, if it has what stands before and behind a text."""
    for role in ("begin", "end"):
        if tokenizer.special[role] < 0:
            known = ", ".join(tokenize.ROLES[role])
            raise UserError(2, f"config.data.tokenizer: it has no token for the {role} of a text: none of {known}")
    return tokenizer


def digest(*parts):
    return hashlib.sha256(repr(parts).encode()).hexdigest()
