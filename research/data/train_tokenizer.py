"""Tokenizers trained on a data set's own text, with Hugging Face's `tokenizers`.

    characters   each Unicode character that the text has
    bytes        the 256 bytes of UTF-8
    blanks       words as the text's blanks cut them; for text that is tokenised already
    words        words and punctuation apart
    bpe          byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909; Radford et al. 2019)
    wordpiece    Schuster and Nakajima 2012
    bert         the same as BERT has it: lower case, without accents, and its own special tokens, [MASK] among them
    unigram      Kudo 2018 (arXiv:1804.10959); trained twice, it comes out a little different: the library's doing

Bytes and bpe give any text back exactly; characters do where none is unknown. Ids 0 to 3 are padding, unknown, begin
and end in all of them, and but for bert no text is read as one of these.
"""

import json

import numpy as np

from research.data import cuts
from research.data.tokenize import ROLES, SPECIAL, UNKNOWN, Tokenizer, as_berts
from research.errors import UserError, pick

KINDS = ("characters", "bytes", "blanks", "words", "bpe", "wordpiece", "bert", "unigram")


def normalizers():
    """What may be done to a text before it is cut, by name."""
    from tokenizers import Regex
    from tokenizers import normalizers as library

    return {
        "nfc": library.NFC(),
        "nfkc": library.NFKC(),
        "lowercase": library.Lowercase(),
        "strip_accents": library.Sequence([library.NFD(), library.StripAccents()]),
        "strip_control": library.Replace(Regex(cuts.CONTROL), ""),
        "strip_tags": library.Replace(Regex(cuts.TAG), " "),
        "strip_urls": library.Replace(Regex(cuts.URL), " "),
        "whitespace": library.Sequence([library.Replace(Regex(cuts.BLANKS), " "), library.Strip()]),
    }


def train(texts, kind, vocabulary_size, min_count=1, normalize=()):
    """A Tokenizer of one of KINDS, trained on texts.

    Args:
        texts: an iterable, gone through twice for wordpiece.
        vocabulary_size: at most so many tokens, the special ones among them.
        min_count: a token (a pair, for bpe) that is rarer is left out.
        normalize: names among `normalizers()`, applied in this order.

    Raises:
        UserError: 2, for an unknown name or a vocabulary too small to hold what the kind always has.
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers
    from tokenizers import normalizers as library

    pick(dict.fromkeys(KINDS), kind, "config.data.tokenizer")
    bert = kind == "bert"
    special = [known[0] for known in ROLES.values()] if bert else list(SPECIAL)
    known = normalizers()
    steps = [pick(known, name, "config.data.normalize") for name in normalize]
    steps = [library.BertNormalizer(), *steps] if bert else steps
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(special) + (len(alphabet) if kind in ("bytes", "bpe") else 1)
    if vocabulary_size < least:
        raise UserError(2, f"config.data.vocabulary_size: {vocabulary_size} is too few for {kind}: at least {least}")
    common = {"special_tokens": special, "show_progress": False, "vocab_size": vocabulary_size}
    counted = {**common, "min_frequency": min_count}
    model, cutter, decoder, trainer = _parts(kind, special[UNKNOWN], counted, common)
    most = vocabulary_size - len(special)
    normalised = (library.Sequence(steps).normalize_str(text) for text in texts)
    if kind == "characters":
        alphabet = _alphabet(normalised, most, min_count)
    if kind in ("wordpiece", "bert"):  # named beforehand, since the library numbers them in the order of a hash
        trainer.special_tokens = [
            *special,
            *(f"##{c}" for c in _alphabet(normalised, most, 1) if not c.isspace()),
        ]
    if trainer is None:
        tokens = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
        model = models.BPE(vocab=tokens, merges=[], unk_token=SPECIAL[UNKNOWN])
    result = Library(model)
    if steps:
        result.normalizer = library.Sequence(steps)
    if cutter is not None:
        result.pre_tokenizer = cutter
    if decoder is not None:
        result.decoder = decoder
    if trainer is not None:
        try:
            result.train_from_iterator(texts, trainer)
        except Exception as error:  # the library raises bare Exceptions
            raise UserError(2, f"config.data.vocabulary_size: {vocabulary_size} for {kind}: {error}") from error
    if result.get_vocab_size() <= len(special):
        raise UserError(2, f"config.data.min_count: no token of the text stands there {min_count} times")
    if bert:
        vocabulary = result.get_vocab()
        return as_berts(Library(models.WordPiece(vocabulary, unk_token=special[UNKNOWN])), library.Sequence(steps))
    # Without this list not even a text with these very names is read as special.
    return Tokenizer(json.dumps({**json.loads(result.to_str()), "added_tokens": []}, ensure_ascii=False))


def _parts(kind, unknown, counted, common):
    """The library's model, what cuts words, decoder and trainer of a kind; None where it has none, and for characters,
    whose tokens are known beforehand.

    Args:
        unknown: the token.
        counted, common: arguments of trainers that count tokens, and of others.
    """
    from tokenizers import decoders, models, pre_tokenizers, trainers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "bpe")
    word_decoder = decoders.WordPiece(prefix="##", cleanup=True)
    pieces = (models.WordPiece(unk_token=unknown), pre_tokenizers.BertPreTokenizer(), word_decoder,
              trainers.WordPieceTrainer(**counted))  # fmt: skip
    return {
        "characters": (models.BPE(), None, decoders.Fuse(), None),
        "bytes": (models.BPE(), byte_level, decoders.ByteLevel(), None),
        "blanks": (models.WordLevel(unk_token=unknown), pre_tokenizers.WhitespaceSplit(), None,
                   trainers.WordLevelTrainer(**counted)),
        "words": (models.WordLevel(unk_token=unknown), pre_tokenizers.Whitespace(), word_decoder,
                  trainers.WordLevelTrainer(**counted)),
        "bpe": (models.BPE(), byte_level, decoders.ByteLevel(),
                trainers.BpeTrainer(**counted, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))),
        "wordpiece": pieces,
        "bert": pieces,
        "unigram": (models.Unigram(), pre_tokenizers.Metaspace(), decoders.Metaspace(),
                    trainers.UnigramTrainer(**common, unk_token=unknown)),
    }[kind]  # fmt: skip


def _alphabet(texts, most, min_count):
    """The most frequent characters, in the order of their code points."""
    counts = {}
    for text in texts:
        points, found = np.unique(
            np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32), return_counts=True
        )
        for point, n in zip(points.tolist(), found.tolist()):
            counts[chr(point)] = counts.get(chr(point), 0) + n
    frequent = sorted((c for c in counts if counts[c] >= min_count), key=lambda c: (-counts[c], c))
    return sorted(frequent[:most])
