"""Tokenizers: text to ids and back, by Hugging Face's `tokenizers`; and those of others out of their files.

How ours are trained is in research.data.train_tokenizer. Those of others, out of folders in Hugging Face's layout, keep
their own special tokens: what each is for is asked of the Tokenizer.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib

import numpy as np

from research.data import hub
from research.data.reading import read_lines, read_text
from research.errors import UserError

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
            sizes = fitted(len(first), len(second), room)
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

    def encode_spans(self, texts):
        """Of each text its ids, without begin and end, and the characters that each is: [(ids, [(first, behind)])]."""
        found = self._library.encode_batch(list(texts), add_special_tokens=False)
        return [(one.ids, one.offsets) for one in found]

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


def fitted(first, second, room):
    """How much is kept of two texts, int[...], so that they fit: the longer one is cut down to the other, then both."""
    short = np.minimum(np.minimum(first, second), room // 2)
    long = np.minimum(np.maximum(first, second), room - short)
    return np.where(first > second, long, short), np.where(first > second, short, long)


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
    make = {"vocab.json": _of_bpe, "vocab.txt": _of_wordpiece}.get(path.name, lambda path: Tokenizer(read_text(path)))
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
    for names in (("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",)):
        if all((folder / name).exists() for name in names):
            return folder / names[0]
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
    from tokenizers import models, normalizers

    tokens = read_lines(path)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        twice = next(token for i, token in enumerate(tokens) if vocabulary[token] != i)
        raise UserError(3, f"{path}: {twice!r} stands there twice")
    begin, end, unknown = (ROLES[role][0] for role in ("begin", "end", "unknown"))
    if lost := [token for token in (unknown, begin, end) if token not in vocabulary]:
        raise UserError(3, f"{path}: {lost[0]} is missing")
    beside = path.with_name("tokenizer_config.json")
    given = json.loads(read_text(beside)) if beside.exists() else {}
    library = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=100))
    normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=given.get("tokenize_chinese_chars", True),
        strip_accents=given.get("strip_accents"),
        lowercase=given.get("do_lower_case", True),
    )
    return as_berts(library, normalizer)


def as_berts(library, normalizer):
    """The Tokenizer of a WordPiece model of the library that has BERT's special tokens: a text stands between [CLS] and
    [SEP], which, as [MASK] and the others, are read where a text has them by name.
    """
    from tokenizers import decoders, pre_tokenizers, processors

    begin, end = ROLES["begin"][0], ROLES["end"][0]
    library.normalizer, library.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    library.add_special_tokens([known[0] for known in ROLES.values() if library.token_to_id(known[0]) is not None])
    library.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1",
        special_tokens=[(token, library.token_to_id(token)) for token in (begin, end)],
    )
    return Tokenizer(library.to_str())
