"""Where a long text may be cut so that the ids of its parts, laid end to end, are the ids of the text."""

import itertools
import json
import re
import unicodedata
from typing import Any, NamedTuple

PIECE = 1 << 16  # characters that a part has at least, where a text is longer

# Patterns of the normalizers that tokenizers are trained with; see research.data.train_tokenizer.
CONTROL = r"[\p{Cc}\p{Cf}&&[^\n\t]]"
TAG = r"<[^<>]{1,200}>"
URL = r"(?:https?://|www\.)\S+"
BLANKS = r"\s+"
LONGEST_TAG = 202

LINE = re.compile(r"(?<=\S)\n(?=\S)")
BLANK = re.compile(r"(?<=\S)(?= \S)")
# Besides, in scripts without blanks, between a punctuation mark and a letter.
MARK = re.compile(rf"{BLANK.pattern}|(?<=[。！？，、；])(?=[\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3])")

# Normalizers that change a character by itself, or with the marks that follow it.
BY_CHARACTER = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase"}
# Pre-tokenizers to which blanks are nothing but the ends of words.
BY_WORD = {"WhitespaceSplit", "Whitespace", "BertPreTokenizer"}


class Cuts(NamedTuple):
    """The places at which texts may be cut."""

    line: bool = False  # after the end of a line that stands between two characters other than blanks
    inside: Any = None  # a compiled pattern of places within a line
    tags: bool = False  # not within a possible HTML tag, which a normalizer replaces as one
    anywhere: bool = False  # between any two characters

    def find(self, text, at):
        """Returns the first place from `at` on, an end of a line if one is near; -1 if more of the text is needed."""
        stop = at + PIECE
        free = lambda place: not (self.tags and _is_in_tag(text, place))
        lines = LINE.finditer(text, at, stop) if self.line else ()
        found = next((line.end() for line in lines if free(line.end())), -1)
        if found < 0 and len(text) >= stop:
            places = self.inside.finditer(text, at) if self.inside else ()
            found = next((place.start() for place in places if free(place.start())), at if self.anywhere else -1)
        return found

    def parts(self, blocks):
        """Yields a text, given in blocks, as (part, whether it is the last)."""
        held = ""
        for block in blocks:
            held, start = held + block, 0
            while (end := self.find(held, start + PIECE)) >= 0:
                yield held[start:end], False
                start = end
            held = held[start:]
        yield held, True


LINES = Cuts(line=True, inside=BLANK)
NONE = Cuts()


def cuts_of(tokenizer, newline="\n"):
    """Returns the Cuts of texts for a tokenizer, and whether they are cuts of the text that it has normalized.

    Args:
        tokenizer: its JSON.
        newline: what it reads for the end of a line.
    """
    parts = json.loads(tokenizer)
    steps, added, cutter = _steps(parts["normalizer"]), parts.get("added_tokens") or [], parts["pre_tokenizer"]
    # Such a token takes the blanks beside it, and may hold some.
    if any(token["lstrip"] or token["rstrip"] or re.search(r"\s", token["content"]) for token in added):
        return NONE, False
    kinds = {_kind(step) for step in steps}
    by_word = cutter is not None and cutter["type"] in BY_WORD
    if kinds <= BY_CHARACTER | (({"StripAccents", "BertNormalizer", "control"}) if by_word else set()):
        return _of_cutter(cutter, parts["model"], newline, kinds), False
    if None in kinds:
        return NONE, False
    if by_word:
        return _of_cutter(cutter, parts["model"], newline, kinds)._replace(inside=BLANK, tags="tag" in kinds), False
    return (NONE, False) if added else (_of_cutter(cutter, parts["model"], "\n", set()), True)


def _of_cutter(cutter, model, newline, normalizers):
    """The Cuts for a pre-tokenizer and a model whose texts are normalized by these kinds of steps, if by any."""
    by_byte = cutter is not None and cutter["type"] == "ByteLevel" and not cutter["add_prefix_space"]
    if by_byte and cutter["use_regex"]:
        return Cuts(newline == "\n", MARK)
    if by_byte or cutter is None:  # without merges each byte or character is a token
        ends = newline[-1:].isspace() or not normalizers  # no mark that follows it is joined to what is before it
        return NONE if model.get("merges", True) else Cuts(ends, BLANK, anywhere=not normalizers)
    if cutter["type"] == "Metaspace" and cutter["prepend_scheme"] == "always" and cutter["split"]:
        return Cuts(inside=BLANK)
    if cutter["type"] in BY_WORD:
        return Cuts(newline[-1:].isspace(), BLANK if cutter["type"] == "WhitespaceSplit" else MARK)
    return NONE


def normalized(normalize, newline, blocks):
    """Yields a text, given in blocks, as its normalizer leaves it; in parts, whose ends a normalizer may not strip.

    Args:
        normalize: str -> str, by steps that `cuts_of` knows.
        newline: what is read for the end of a line.
    """
    started = False
    for part, _ in Cuts(inside=BLANK, tags=True).parts(blocks):
        part = part.replace("\n", newline)
        # Each part but the first begins with a blank, which a letter before it keeps from being stripped.
        part = normalize(f"x{part}")[1:] if started else normalize(part)
        started |= bool(part)
        yield part


def _steps(normalizer):
    """The steps of a normalizer, one after the other."""
    if normalizer is None:
        return []
    inner = normalizer.get("normalizers")
    return [normalizer] if inner is None else list(itertools.chain.from_iterable(map(_steps, inner)))


def _kind(step):
    """What a step of a normalizer is called here; None for one that may change anything."""
    if step["type"] == "Replace":
        known = {CONTROL: "control", TAG: "tag", URL: "url", BLANKS: "blanks"}
        return known.get(step["pattern"].get("Regex"))
    known = {*BY_CHARACTER, "StripAccents", "BertNormalizer", "Strip"}
    return step["type"] if step["type"] in known else None


def _is_in_tag(text, place):
    """Whether a tag may have begun before a place and not ended, also one that other normalizers make of the text."""
    before = unicodedata.normalize("NFKC", text[max(0, place - 8 * LONGEST_TAG) : place])
    before = "".join(c for c in before if unicodedata.category(c) not in ("Cc", "Cf"))[-LONGEST_TAG:]
    return before.rfind("<") > before.rfind(">")
