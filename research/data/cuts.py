"""Finds places to cut a long text, so that the ids of its parts, concatenated, equal the ids of the complete text."""

import itertools
import json
import re
import unicodedata
from typing import Any, NamedTuple

PIECE = 1 << 16  # minimum length of a part in characters, except the last

# Patterns that the normalizers of research.data.train_tokenizer replace, and their replacements.
CONTROL, TAG, URL, BLANKS = r"[\p{Cc}\p{Cf}&&[^\n\t]]", r"<[^<>]{1,200}>", r"(?:https?://|www\.)\S+", r"\s+"
REPLACED = {(CONTROL, ""): "control", (TAG, " "): "tag", (URL, " "): "url", (BLANKS, " "): "blanks"}
LONGEST_TAG = 202

LINE_END = re.compile(r"(?<=\S)\n(?=\S)")
BLANK = re.compile(r"(?<=\S)(?= \S)")
# For scripts without blanks, also between a punctuation mark and a letter.
MARK = re.compile(rf"{BLANK.pattern}|(?<=[。！？，、；])(?=[\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3])")

# Normalizers that change single characters, or a character together with its combining marks.
BY_CHARACTER = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase"}
# Pre-tokenizers that discard whitespace.
BY_WORD = {"WhitespaceSplit", "Whitespace", "BertPreTokenizer"}


class Cuts(NamedTuple):
    """Places where a text may be cut. Without any, the text stays complete."""

    lines: bool = False  # after a line end between two characters that are not whitespace
    inside: Any = None  # pattern of the places within a line; None: no such places
    outside_tags: bool = False  # whether places in a possible HTML tag are excluded, since a normalizer replaces tags
    anywhere: bool = False  # between any two characters

    def find(self, text, at):
        """Returns the first place at or after `at`, preferring a line end nearby; -1 if more text is needed."""
        stop = at + PIECE
        allowed = lambda place: not (self.outside_tags and _is_in_tag(text, place))
        ends = (line.end() for line in LINE_END.finditer(text, at, stop)) if self.lines else ()
        found = next(filter(allowed, ends), -1)
        if found < 0 and len(text) >= stop:
            places = (place.start() for place in self.inside.finditer(text, at)) if self.inside else ()
            found = next(filter(allowed, places), at if self.anywhere else -1)
        return found

    def parts(self, blocks):
        """Cuts a text, an iterable of blocks; yields pairs (part, whether it is the last)."""
        held = ""
        for block in blocks:
            held, start = held + block, 0
            while (end := self.find(held, start + PIECE)) >= 0:
                yield held[start:end], False
                start = end
            held = held[start:]
        yield held, True


LINES = Cuts(lines=True, inside=BLANK)
NONE = Cuts()


def cuts_of(tokenizer, newline="\n"):
    """Returns the Cuts for a tokenizer, and whether they are places in the normalized text rather than the original.

    Args:
        tokenizer: its JSON.
        newline: text that replaces each line end before encoding.
    """
    parts = json.loads(tokenizer)
    cutter, model, added = parts["pre_tokenizer"], parts["model"], parts.get("added_tokens") or []
    # These tokens consume the whitespace next to them, or contain some.
    if any(token["lstrip"] or token["rstrip"] or re.search(r"\s", token["content"]) for token in added):
        return NONE, False
    steps = {_kind(step) for step in _steps(parts["normalizer"])}
    if None in steps:
        return NONE, False
    if steps <= BY_CHARACTER:
        return _of_cutter(cutter, model, newline, steps), False
    if cutter is not None and cutter["type"] in BY_WORD:
        # Whitespace that a step adds, merges or strips does not matter here; what it replaces must not be cut.
        cuts = _of_cutter(cutter, model, newline, steps)
        if steps & {"tag", "url", "blanks", "Strip"}:
            cuts = cuts._replace(inside=BLANK, outside_tags="tag" in steps)
        return cuts, False
    if added:  # they are found in the original text, before it is normalized
        return NONE, False
    return _of_cutter(cutter, model, "\n", set()), True


def _of_cutter(cutter, model, newline, steps):
    """Returns the Cuts for a pre-tokenizer and a model, of texts that these steps of a normalizer may change."""
    kind = "characters" if cutter is None else cutter["type"]
    if kind in BY_WORD:
        return Cuts(newline[-1:].isspace(), BLANK if kind == "WhitespaceSplit" else MARK)
    if kind == "Metaspace" and cutter["prepend_scheme"] == "always" and cutter["split"]:
        return Cuts(inside=BLANK)
    if kind == "ByteLevel" and cutter["add_prefix_space"]:
        return NONE
    if kind == "ByteLevel" and cutter["use_regex"]:
        return Cuts(newline == "\n", MARK)
    if kind in ("characters", "ByteLevel") and not model.get("merges", True) and not model.get("fuse_unk"):
        # Every character or byte is a token. A step may still compose a character with the combining mark after it.
        return Cuts(newline[-1:].isspace() or not steps, BLANK, anywhere=not steps)
    return NONE


def normalized(normalize, newline, blocks):
    """Normalizes a text, an iterable of blocks, part by part; yields the parts of the normalized text.

    Args:
        normalize: str -> str, a normalizer whose steps are all known here.
        newline: text that replaces each line end first.
    """
    started = False
    for part, _ in Cuts(inside=BLANK, outside_tags=True).parts(blocks):
        part = part.replace("\n", newline)
        # Every part except the first starts with a blank. Put a letter before it, or the normalizer may strip it.
        part = normalize(f"x{part}")[1:] if started else normalize(part)
        started |= bool(part)
        yield part


def _steps(normalizer):
    """Returns the steps of a normalizer as a flat list."""
    if not normalizer:
        return []
    if "normalizers" not in normalizer:
        return [normalizer]
    return list(itertools.chain.from_iterable(map(_steps, normalizer["normalizers"])))


def _kind(step):
    """Returns the kind of a step of a normalizer; None if its effect is not known here."""
    if step["type"] == "Replace":
        return REPLACED.get((step["pattern"].get("Regex"), step["content"]))
    return step["type"] if step["type"] in {*BY_CHARACTER, "StripAccents", "BertNormalizer", "Strip"} else None


def _is_in_tag(text, place):
    """Whether an HTML tag may be open at a place, also one that earlier steps of a normalizer create."""
    before = unicodedata.normalize("NFKC", text[max(0, place - 8 * LONGEST_TAG) : place])
    before = "".join(c for c in before if unicodedata.category(c) not in ("Cc", "Cf"))[-LONGEST_TAG:]
    return before.rfind("<") > before.rfind(">")
