"""Tokenizers: text to ids and back, trained on a data set's own text with Hugging Face's `tokenizers`.

    characters   each Unicode character that the text has
    bytes        the 256 bytes of UTF-8
    blanks       words as the text's blanks cut them; for text that is tokenised already
    words        words and punctuation apart
    bpe          byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909; Radford et al. 2019)
    wordpiece    Schuster and Nakajima 2012, as BERT has it
    unigram      Kudo 2018 (arXiv:1804.10959); trained twice, it comes out a little different: the library's doing

Bytes and bpe give any text back exactly; characters do where none is unknown. Ids 0 to 3 are padding, unknown, begin
and end in all of them, and no text is read as one of these. Those of others, out of folders in Hugging Face's layout,
keep their own special tokens: what each is for is asked of the Tokenizer.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib

import numpy as np

from research.data import hub
from research.errors import UserError, pick

PAD, UNKNOWN, BEGIN, END = range(4)
SPECIAL = ("< pad >", "< unknown >", "< begin >", "< end >")  # each with a blank: no cutter gives such a token
ROLES = {  # what SPECIAL are for, and how others spell it: BERT, RoBERTa and T5, GPT-2
    "pad": ("[PAD]", "<pad>"),
    "unknown": ("[UNK]", "<unk>"),
    "begin": ("[CLS]", "<s>", "<|endoftext|>"),
    "end": ("[SEP]", "</s>", "<|endoftext|>"),
    "mask": ("[MASK]", "<mask>"),
}
NEWLINE = " <eos> "  # the end of a line as a word, by custom
KINDS = ("characters", "bytes", "blanks", "words", "bpe", "wordpiece", "unigram")


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A trained tokenizer; its JSON is Hugging Face's, and all that there is of it.

    `pad`, `unknown`, `begin`, `end` and `mask` are ids, -1 where it has no such token: an id that no token has.
    """

    json: str
    pad = property(lambda self: self.special["pad"])
    unknown = property(lambda self: self.special["unknown"])
    begin = property(lambda self: self.special["begin"])
    end = property(lambda self: self.special["end"])
    mask = property(lambda self: self.special["mask"])

    @functools.cached_property
    def special(self):
        """{role: id}, of each of ROLES."""
        if self.is_ours:
            return {**dict.fromkeys(ROLES, -1), **dict(zip(ROLES, range(len(SPECIAL))))}
        added = json.loads(self.json).get("added_tokens") or []
        named = {token["content"]: token["id"] for token in added if token["special"]}
        return {role: next((named[s] for s in spelled if s in named), -1) for role, spelled in ROLES.items()}

    @functools.cached_property
    def is_ours(self):
        return all(self._library.id_to_token(i) == token for i, token in enumerate(SPECIAL))

    @functools.cached_property
    def frame(self):
        """The ids before and behind a text that is read whole: of ours an end behind, of others what their template
        adds, which is nothing for GPT-2."""
        if self.is_ours:
            return [], [END]
        added = self._library.encode("", add_special_tokens=True).ids
        return added[:-1], added[-1:]

    def join(self, first, second=(), size=None):
        """The ids of a text that is read whole, or of two, and of which of them each is: [CLS] first [SEP] second
        [SEP], as BERT has it; see `frame`. A second one that is empty is none.

        Args:
            first, second: ids.
            size: at most so many in all; of two the longer one is cut, down to the other, then both by turns.

        Returns:
            two lists; the second has 0 for the first text and 1 for the second.
        """
        (before, behind), two = self.frame, len(second) > 0
        if size is not None:
            room = max(0, size - len(before) - len(behind) * (1 + two))
            short = min(len(first), len(second), room // 2)
            long = room - short
            sizes = (long, short) if len(first) > len(second) else (short, long)
            first, second = first[: sizes[0]], second[: sizes[1]]
        one, other = [*before, *first, *behind], [*second, *behind] if two else []
        return one + other, [0] * len(one) + [1] * len(other)

    @functools.cached_property
    def _library(self):
        import tokenizers

        library = tokenizers.Tokenizer.from_str(self.json)
        library.no_truncation()  # both stand in many a file of others, and would cut and pad in silence
        library.no_padding()
        return library

    @property
    def size(self):
        return self._library.get_vocab_size()

    @property
    def digest(self):
        """By which a tokenizer is known again."""
        return hashlib.sha256(self.json.encode()).hexdigest()

    @functools.cached_property
    def vocabulary(self):
        """The tokens by id."""
        return tuple(self._library.id_to_token(i) for i in range(self.size))

    @functools.cached_property
    def token_bytes(self):
        """int32[V]: bytes of text that a token stands for; None for a tokenizer that loses some of the text: words,
        wordpiece, unigram. An unknown character counts 1.

        Of blanks a word stands for itself and the blank before it, `<eos>` for a blank and the end of a line, as text
        that is tokenised already has it; an unknown word counts 0.
        """
        parts = json.loads(self.json)
        cutter = (parts["pre_tokenizer"] or {}).get("type")
        if cutter == "WhitespaceSplit":
            sizes = [2 if token == NEWLINE.strip() else 1 + len(token.encode()) for token in self.vocabulary]
            unknown = 0
        elif parts["model"]["type"] == "BPE":
            one_a_byte = "ByteLevel" in self.json  # its alphabet has a character for each byte
            sizes = [len(token) if one_a_byte else len(token.encode()) for token in self.vocabulary]
            unknown = 1
        else:
            return None
        sizes, special = np.array(sizes, np.int32), {i for i in self.special.values() if i >= 0}
        sizes[list(special)] = 0
        if self.unknown >= 0:
            sizes[self.unknown] = unknown
        return sizes

    def by_lines(self, newline="\n"):
        """Whether ids of a text are those of its parts end to end, if it is cut behind the end of a line that stands
        between two characters that are no blanks.

        Args:
            newline: what is read for the end of a line.
        """
        parts = json.loads(self.json)
        flat = lambda step: (
            [one for part in step["normalizers"] for one in flat(part)] if "normalizers" in step else [step]
        )
        steps = flat(parts["normalizer"] or {"normalizers": []})
        if not {step["type"] for step in steps} <= {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"}:
            return False
        if any(token["lstrip"] for token in parts.get("added_tokens") or []):  # which takes the end of a line before it
            return False
        cutter = parts["pre_tokenizer"]
        if cutter is None:
            return not parts["model"].get("merges", True)  # characters
        if cutter["type"] == "ByteLevel":
            return newline == "\n" and not cutter["add_prefix_space"]
        return cutter["type"] in ("WhitespaceSplit", "Whitespace", "BertPreTokenizer") and newline[-1:].isspace()

    def normalize(self, text):
        """The text as it is before it is cut."""
        return text if self._library.normalizer is None else self._library.normalizer.normalize_str(text)

    def encode(self, texts):
        """Ids of each text, without begin and end: list of lists."""
        return [found.ids for found in self._library.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids):
        """The text of ids up to the first end; padding and begin are left out.

        Raises:
            UserError: 3, for an id outside the vocabulary.
        """
        ids = np.asarray(ids, np.int64)
        ids = ids[ids != self.pad]
        if ids.size and not (0 <= ids.min() and ids.max() < self.size):
            raise UserError(
                3, f"token id {ids.max() if ids.max() >= self.size else ids.min()} is outside [0, {self.size})"
            )
        if self.begin != self.end:
            ids = ids[ids != self.begin]
        elif len(ids) and ids[0] == self.begin:  # GPT-2's one token for both
            ids = ids[1:]
        ends = np.flatnonzero(ids == self.end)
        ids = ids[: ends[0]] if len(ends) else ids
        return self._library.decode(ids.tolist(), skip_special_tokens=False)

    def stream(self, before):
        """A function that takes the ids behind these, some at a time, and gives the text that each lot adds.

        A character of several tokens comes with the last of them; what no character became is left out.
        """
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=False)
        add = lambda ids: "".join(stream.step(self._library, int(i)) or "" for i in ids)
        add(before)
        return add

    def __getstate__(self):
        return self.json

    def __setstate__(self, state):
        object.__setattr__(self, "json", state)


def read(source):
    """A tokenizer from its JSON file; from a folder in Hugging Face's layout, or the name of one: hf:FOLDER_OR_NAME.

    Raises:
        UserError: 3, for a file that is none, or a folder without.
    """
    path = pathlib.Path(source)
    if str(source).startswith(hub.PREFIX) or path.is_dir():
        folder = hub.find(str(source), "config.data.tokenizer")
        path = file_of(folder)
        if path is None:
            raise UserError(
                3, f"{folder}: no tokenizer: neither tokenizer.json nor vocab.json and merges.txt nor vocab.txt"
            )
    make = {"vocab.json": _of_bpe, "vocab.txt": _of_wordpiece}.get(
        path.name, lambda path: Tokenizer(path.read_text(encoding="utf-8"))
    )
    try:
        tokenizer = make(path)
        if not tokenizer.size:  # for this the library reads it
            raise ValueError("it has no token")
    except OSError as error:
        raise UserError(3, f"{path}: no tokenizer can be read there: {error.strerror}") from error
    except UserError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(3, f"{path}: not a tokenizer in Hugging Face's JSON: {error}") from error
    return tokenizer


def file_of(folder):
    """The file in a folder of Hugging Face's layout by which its tokenizer is read; None where there is none."""
    for name, beside in ((own := "tokenizer.json", own), ("vocab.json", "merges.txt"), (own := "vocab.txt", own)):
        if (folder / name).exists() and (folder / beside).exists():
            return folder / name
    return None


def _of_bpe(path):
    """GPT-2's tokenizer out of vocab.json and merges.txt."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    library = tokenizers.Tokenizer(models.BPE.from_file(str(path), str(path.with_name("merges.txt"))))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([ROLES["end"][-1]])
    return Tokenizer(library.to_str())


def _of_wordpiece(path):
    """BERT's tokenizer out of vocab.txt, a token a line, and the choices in tokenizer_config.json, where it is."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    tokens = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    vocabulary = {token.rstrip("\r"): i for i, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        twice = next(token for i, token in enumerate(tokens) if vocabulary[token.rstrip("\r")] != i)
        raise UserError(3, f"{path}: {twice!r} stands there twice")
    begin, end, unknown = (ROLES[role][0] for role in ("begin", "end", "unknown"))
    if lost := [token for token in (unknown, begin, end) if token not in vocabulary]:
        raise UserError(3, f"{path}: {lost[0]} is missing")
    beside = path.with_name("tokenizer_config.json")
    given = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
    library = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=100))
    library.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=given.get("tokenize_chinese_chars", True),
        strip_accents=given.get("strip_accents"),
        lowercase=given.get("do_lower_case", True),
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    library.add_special_tokens([spelled[0] for spelled in ROLES.values() if spelled[0] in vocabulary])
    library.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1",
        special_tokens=[(token, vocabulary[token]) for token in (begin, end)],
    )
    return Tokenizer(library.to_str())


def normalizers():
    """What may be done to a text before it is cut, by name."""
    from tokenizers import Regex
    from tokenizers import normalizers as library

    return {
        "nfc": library.NFC(),
        "nfkc": library.NFKC(),
        "lowercase": library.Lowercase(),
        "strip_accents": library.Sequence([library.NFD(), library.StripAccents()]),
        "strip_control": library.Replace(Regex(r"[\p{Cc}\p{Cf}&&[^\n\t]]"), ""),
        "strip_tags": library.Replace(Regex(r"<[^<>]{1,200}>"), " "),
        "strip_urls": library.Replace(Regex(r"(?:https?://|www\.)\S+"), " "),
        "whitespace": library.Sequence([library.Replace(Regex(r"\s+"), " "), library.Strip()]),
    }


def train(texts, kind, vocabulary_size, min_count=1, normalize=()):
    """A Tokenizer of one of KINDS, trained on texts.

    Args:
        texts: an iterable, gone through twice for wordpiece.
        vocabulary_size: at most so many tokens, the four special ones among them.
        min_count: a token (a pair, for bpe) that is rarer is left out.
        normalize: names among `normalizers()`, applied in this order.

    Raises:
        UserError: 2, for an unknown name or a vocabulary too small to hold what the kind always has.
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from tokenizers import normalizers as library

    pick(dict.fromkeys(KINDS), kind, "config.data.tokenizer")
    known = normalizers()
    steps = [pick(known, name, "config.data.normalize") for name in normalize]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(SPECIAL) + (len(alphabet) if kind in ("bytes", "bpe") else 1)
    if vocabulary_size < least:
        raise UserError(2, f"config.data.vocabulary_size: {vocabulary_size} is too few for {kind}: at least {least}")
    common = {"special_tokens": list(SPECIAL), "show_progress": False, "vocab_size": vocabulary_size}
    counted = {**common, "min_frequency": min_count}
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "bpe")
    word_decoder = decoders.WordPiece(prefix="##", cleanup=True)
    model, cutter, decoder, trainer = {
        "characters": (models.BPE(), None, decoders.Fuse(), None),
        "bytes": (models.BPE(), byte_level, decoders.ByteLevel(), None),
        "blanks": (models.WordLevel(unk_token=SPECIAL[UNKNOWN]), pre_tokenizers.WhitespaceSplit(), None,
                   trainers.WordLevelTrainer(**counted)),
        "words": (models.WordLevel(unk_token=SPECIAL[UNKNOWN]), pre_tokenizers.Whitespace(), word_decoder,
                  trainers.WordLevelTrainer(**counted)),
        "bpe": (models.BPE(), byte_level, decoders.ByteLevel(),
                trainers.BpeTrainer(**counted, initial_alphabet=alphabet)),
        "wordpiece": (models.WordPiece(unk_token=SPECIAL[UNKNOWN]), pre_tokenizers.BertPreTokenizer(), word_decoder,
                      trainers.WordPieceTrainer(**counted)),
        "unigram": (models.Unigram(), pre_tokenizers.Metaspace(), decoders.Metaspace(),
                    trainers.UnigramTrainer(**common, unk_token=SPECIAL[UNKNOWN])),
    }[kind]  # fmt: skip
    normalised = (library.Sequence(steps).normalize_str(text) for text in texts)
    if kind == "characters":
        alphabet = _alphabet(normalised, vocabulary_size, min_count)
    if kind == "wordpiece":  # named beforehand, since the library numbers them in the order of a hash
        trainer.special_tokens = [
            *SPECIAL,
            *(f"##{c}" for c in _alphabet(normalised, vocabulary_size, 1) if not c.isspace()),
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
    if result.get_vocab_size() <= len(SPECIAL):
        raise UserError(2, f"config.data.min_count: no token of the text stands there {min_count} times")
    # Without this list not even a text with these very names is read as special.
    return Tokenizer(json.dumps({**json.loads(result.to_str()), "added_tokens": []}, ensure_ascii=False))


def _alphabet(texts, vocabulary_size, min_count):
    """The most frequent characters, in the order of their code points."""
    counts = {}
    for text in texts:
        points, found = np.unique(
            np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32), return_counts=True
        )
        for point, n in zip(points.tolist(), found.tolist()):
            counts[chr(point)] = counts.get(chr(point), 0) + n
    frequent = sorted((c for c in counts if counts[c] >= min_count), key=lambda c: (-counts[c], c))
    return sorted(frequent[: vocabulary_size - len(SPECIAL)])
