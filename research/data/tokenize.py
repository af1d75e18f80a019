"""Tokenizers: text to ids and back, by Hugging Face's `tokenizers`; and those of others out of their files.

How ours are trained is in research.data.train_tokenizer. Those of others, out of folders in Hugging Face's layout, keep
their own special tokens: what each is for is asked of the Tokenizer.
"""

import dataclasses
import functools
import hashlib
import itertools
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
PARTIAL = "\ufffd"  # the library decodes an incomplete character to it
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

    @functools.cached_property
    def size(self):
        """The largest id plus one. Ids may have gaps."""
        return 1 + max(self._library.get_vocab().values(), default=-1)

    @property
    def digest(self):
        """SHA-256 of the JSON, which identifies the tokenizer."""
        return hashlib.sha256(self.json.encode()).hexdigest()

    @functools.cached_property
    def vocabulary(self):
        """The tokens by id."""
        return tuple(self._library.id_to_token(i) or f"<unused{i}>" for i in range(self.size))

    @functools.cached_property
    def token_bytes(self):
        """int32[V], the number of bytes of text per token; None if the tokenizer does not keep the text as it is.

        That is the case for any tokenizer with a normalizer, and for words, wordpiece and unigram. An unknown character
        counts one byte. For `blanks`, a word counts its own bytes and one for the blank before it, `<eos>` counts two,
        for a blank and a line end, as in tokenised text, and an unknown word counts zero.
        """
        parts = json.loads(self.json)
        cutter, added = parts["pre_tokenizer"] or {}, parts.get("added_tokens") or []
        if parts["normalizer"] is not None or cutter.get("add_prefix_space"):
            return None
        if cutter.get("type") == "WhitespaceSplit":
            sizes = [2 if token == NEWLINE.strip() else 1 + len(token.encode()) for token in self.vocabulary]
            unknown = 0
        elif parts["model"]["type"] == "BPE" and "ByteLevel" in json.dumps(cutter):
            sizes, unknown = [len(token) for token in self.vocabulary], 1  # its alphabet has a character per byte
        elif self.is_ours and not cutter and parts["model"]["type"] == "BPE":
            sizes, unknown = [len(token.encode()) for token in self.vocabulary], 1
        else:
            return None
        sizes, special = np.array(sizes, np.int32), {i for i in self.special.values() if i >= 0}
        for token in added:  # matched in the text itself, not in its byte alphabet
            sizes[token["id"]] = len(token["content"].encode())
        sizes[list(special)] = 0
        if self.unknown >= 0:
            sizes[self.unknown] = unknown
        return sizes

    def counts_bytes(self, newline="\n"):
        """Whether `token_bytes` of the tokens of a text add up to its number of bytes.

        Args:
            newline: text that replaces each line end before encoding.
        """
        by_custom = newline == NEWLINE and "WhitespaceSplit" in self.json
        return self.token_bytes is not None and (len(newline.encode()) == 1 or by_custom)

    @functools.cached_property
    def bare(self):
        """The same tokenizer without its normalizer."""
        return Tokenizer(json.dumps({**json.loads(self.json), "normalizer": None}, ensure_ascii=False))

    def normalize(self, text):
        """Returns the normalized text, which is then split into tokens."""
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
        """Returns a function that takes the ids after `before`, a few at a time, and returns the text that they add.

        A character made of several tokens is returned with the last of them. A character that is never completed is
        left out.
        """
        text = lambda ids: self._library.decode(ids, skip_special_tokens=False)
        # Decode a window of ids, since the text of a token may depend on the tokens before it. Of its text, `shown`
        # characters are in `before` or were returned. Once it is complete, its first `context` ids are dropped.
        window, context = [int(i) for i in before], len(before)
        shown = len(text(window).rstrip(PARTIAL))

        def step(i):
            nonlocal window, context, shown
            window.append(int(i))
            whole = text(window)
            new = whole.rstrip(PARTIAL)[shown:]
            shown += len(new)
            if not whole.endswith(PARTIAL):
                window = window[context:]
                context, shown = len(window), len(text(window))
            return new

        return lambda ids: "".join(map(step, ids))

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
    """Reads a tokenizer from its JSON file, or from a folder in Hugging Face's layout or the name of one,
    hf:FOLDER_OR_NAME.

    Raises:
        UserError: 3, for a file that is not a tokenizer, or a folder without one.
    """
    path = pathlib.Path(source)
    if str(source).startswith(hub.PREFIX) or path.is_dir():
        folder = hub.find(str(source), "config.data.tokenizer")
        path = file_of(folder)
        if path is None:
            raise UserError(
                3, f"{folder}: no tokenizer: neither tokenizer.json nor vocab.json and merges.txt nor vocab.txt"
            )
    parsers = {"vocab.json": _of_bpe, "vocab.txt": _of_wordpiece}
    try:
        found = parsers.get(path.name, read_text)(path)
        is_alone = path == pathlib.Path(source) and path.name not in parsers
        tokenizer = Tokenizer(found if is_alone else _completed(found, path.parent))
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


def _completed(found, folder):
    """Adds the settings from the other files of a folder to a tokenizer's JSON: added tokens and add_prefix_space.

    Args:
        found: the JSON; returned unchanged if it has all of them.

    Raises:
        UserError: 3, if the files contradict each other.
    """
    settings, data, changed = _object(folder / "tokenizer_config.json"), json.loads(found), False
    spaced, cutter = settings.get("add_prefix_space"), data["pre_tokenizer"] or {}
    if isinstance(spaced, bool) and cutter.get("type") == "ByteLevel" and cutter["add_prefix_space"] != spaced:
        cutter["add_prefix_space"], changed = spaced, True
    there = {token["content"]: token["id"] for token in data.get("added_tokens") or []}
    vocabulary = data["model"]["vocab"]
    known = there | (vocabulary if isinstance(vocabulary, dict) else {})
    taken = {i: token for token, i in known.items()}
    for token in sorted(_added(folder, settings), key=lambda token: token["id"]):
        content, i = token["content"], token["id"]
        if known.get(content, i) != i or taken.get(i, content) != content:
            other = f"{content!r} is {known[content]}" if content in known else f"{i} is {taken[i]!r}"
            raise UserError(3, f"{folder}: the added token {content!r} has the id {i}, but in the vocabulary {other}")
        if content not in there:
            if isinstance(vocabulary, dict):  # otherwise the library assigns the first free id
                vocabulary[content] = i
            data["added_tokens"], changed = [*(data.get("added_tokens") or []), token], True
    if not changed:
        return found
    data["added_tokens"].sort(key=lambda token: token["id"])
    return json.dumps(data, ensure_ascii=False)


def _added(folder, settings):
    """Reads the added tokens from the files of a folder, in the format of the JSON of `tokenizers`."""
    named = [*_object(folder / "special_tokens_map.json").items(), *settings.items()]
    values = [value for name, value in named if name.endswith(("_token", "_tokens"))]
    values = itertools.chain.from_iterable(value if isinstance(value, list) else [value] for value in values)
    special = {value.get("content") if isinstance(value, dict) else value for value in values}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    found = {}
    for content, i in _object(folder / "added_tokens.json").items():
        own = {"normalized": content not in special, "special": content in special}
        found[content] = {"id": i, "content": content, **flags, **own}
    for i, entry in settings.get("added_tokens_decoder", {}).items():
        own = {name: bool(entry.get(name, default)) for name, default in (flags | {"special": False}).items()}
        own["normalized"] = bool(entry.get("normalized", not own["special"]))
        found[entry["content"]] = {"id": int(i), "content": entry["content"], **own}
    if wrong := [token for token in found.values() if type(token["id"]) is not int or token["id"] < 0]:
        raise ValueError(f"the added token {wrong[0]['content']!r} has the id {wrong[0]['id']!r}")
    return found.values()


def _object(path):
    """Reads the object in a JSON file; returns an empty one if the file does not exist."""
    found = json.loads(read_text(path)) if path.exists() else {}
    if not isinstance(found, dict):
        raise UserError(3, f"{path}: not a JSON object")
    return found


def _of_bpe(path):
    """Builds the JSON of GPT-2's tokenizer from vocab.json and merges.txt."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    library = tokenizers.Tokenizer(models.BPE.from_file(str(path), str(path.with_name("merges.txt"))))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([ROLES["end"][-1]])
    return library.to_str()


def _of_wordpiece(path):
    """Builds the JSON of BERT's tokenizer from vocab.txt, one token per line, and tokenizer_config.json."""
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
    given = _object(path.with_name("tokenizer_config.json"))
    library = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=100))
    normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=given.get("tokenize_chinese_chars", True),
        strip_accents=given.get("strip_accents"),
        lowercase=given.get("do_lower_case", True),
    )
    return as_berts(library, normalizer).json


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
