"""Running text as files of ids: encoded once, in pieces, and read through memory maps, whatever its size.

A folder a split, under $XDG_CACHE_HOME/research/tokens, by the hash of all that its content follows from:

    tokens.bin    the documents' ids end to end: little-endian uint16, or uint32 where the vocabulary needs it
    ends.bin      int64, the place behind each document
    parts.bin     int64, the place behind each part of one, where documents are cut into parts
    index.json    how many ids there are, check sums of both, and what befell the texts

It is written beside its place and renamed: half of one is never seen.
"""

import contextlib
import fcntl
import functools
import json
import os
import shutil
import zlib

import numpy as np

from research.data.cache import cache_home
from research.data.cuts import LINES, cuts_of, normalized
from research.errors import UserError
from research.stderr import counted

FORMAT = "v2"  # of the files; in the folder's name
BATCH = 1 << 21  # characters encoded at a time, by all cores; a token in the making takes some 175 bytes
STRETCH = 1 << 20  # ids under one check sum
CHUNK = 256  # records read at a time
NOT_UTF8 = "texts that were not UTF-8"


class TokenFile:
    """The ids of a split, in a folder that `token_file` made; a stretch of them is checked when it is first read.

    Raises:
        UserError: 3, here or on reading, for a damaged file.
    """

    def __init__(self, folder):
        self.folder, file = folder, "index.json"
        try:
            index = json.loads((folder / file).read_text())
            self.size, self.sums, self.notes, dtype = (index[key] for key in ("tokens", "sums", "notes", "dtype"))
            file = "ends.bin"
            self.ends = np.memmap(folder / file, "<i8", "r")
            if zlib.crc32(self.ends) != index["ends"]:
                raise self._damaged(file, "it is not as written")
            file = "parts.bin"
            self.parts = np.memmap(folder / file, "<i8", "r") if "parts" in index else None
            if self.parts is not None and zlib.crc32(self.parts) != index["parts"]:
                raise self._damaged(file, "it is not as written")
            file = "tokens.bin"
            self.tokens = np.asarray(np.memmap(folder / file, dtype, "r"))  # as a plain array it is read sooner
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(file, f"{type(error).__name__}: {error}") from error
        if len(self.tokens) != self.size:
            raise self._damaged(file, f"{len(self.tokens)} ids in place of {self.size}")
        self.seen = np.zeros(len(self.sums), bool)

    def __len__(self):
        return self.size

    def at(self, places):
        """int32[...], the ids at places int64[...]."""
        if not self.seen.all():
            stretch = places // STRETCH
            for i in np.unique(stretch[~self.seen[stretch]]):
                if zlib.crc32(self.tokens[i * STRETCH : (i + 1) * STRETCH]) != self.sums[i]:
                    last = min((i + 1) * STRETCH, self.size) - 1
                    raise self._damaged("tokens.bin", f"ids {i * STRETCH} to {last} are not as written")
                self.seen[i] = True
        return self.tokens.take(places).astype(np.int32)

    def counts(self, n, vocabulary):
        """int64[vocabulary], how often each id stands among the first n."""
        found = np.zeros(vocabulary, np.int64)
        for start in range(0, n, STRETCH):
            found += np.bincount(self.at(np.arange(start, min(start + STRETCH, n))), minlength=vocabulary)
        return found

    def _damaged(self, file, how):
        return UserError(3, f"{self.folder / file}: damaged: {how}; delete its folder, and the text is encoded again")


def token_file(name, tokenizer, raw, base, field, newline="\n", cut=None):
    """The TokenFile of this name, which is made unless it is there: every document's ids, and an end behind each.

    Args:
        name: holds the hash of all that the content follows from.
        raw, base, field: the texts, see `pieces`.
        newline: what the tokenizer reads for the end of a line.
        cut: function that splits a text into parts, whose places are then stored; no end follows a document.

    Raises:
        UserError: 3 for a damaged one, or damaged data, 5 where it cannot be written.
    """
    folder = cache_home() / "tokens" / f"{name.replace('/', '_')}-{FORMAT}"
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _alone(folder.with_name(f"{folder.name}.lock")):
                if not folder.is_dir():  # else another process was first
                    scratch = folder.with_name(f"{folder.name}.incomplete")
                    shutil.rmtree(scratch, ignore_errors=True)  # left by a process that was killed
                    scratch.mkdir()
                    try:
                        _write(scratch, tokenizer, raw, base, field, newline, cut)
                        os.rename(scratch, folder)
                    finally:
                        shutil.rmtree(scratch, ignore_errors=True)
        except OSError as error:
            raise UserError(
                5, f"{folder}: cannot be written: {error.strerror}; XDG_CACHE_HOME names another place"
            ) from error
    return TokenFile(folder)


@contextlib.contextmanager
def _alone(path):
    """Waits until no other process is here. What is locked is left there: another may be waiting for it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(folder, tokenizer, raw, base, field, newline, cut):
    dtype, notes, size, end = "<u2" if tokenizer.size <= 1 << 16 else "<u4", {}, 0, [tokenizer.end] * (cut is None)
    source = raw.open(base)
    progress = len(source), "documents encoded", lambda batch: sum(last for _, last in batch)
    if hasattr(source, "bytes"):  # one document may be all there is
        progress = source.bytes, "bytes encoded", lambda batch: sum(len(text.encode()) for text, _ in batch)
    documents = documents_of(raw, base, field, notes)
    if cut is None:
        tokenizer, found = encodable(tokenizer, newline, documents)
    else:
        found = ((part.replace("\n", newline), last) for part, last in _cut(documents, cut))
    with contextlib.ExitStack() as files:
        tokens, ends = (files.enter_context((folder / file).open("wb")) for file in ("tokens.bin", "ends.bin"))
        parts = None if cut is None else files.enter_context((folder / "parts.bin").open("wb"))
        for batch in counted(_batches(found), *progress):
            for ids, (_, last) in zip(tokenizer.encode([text for text, _ in batch]), batch):
                if max(ids, default=0) >= tokenizer.size:
                    raise UserError(3, f"data set {raw.name}, split {base}: the tokenizer returns the id {max(ids)}, "
                                       f"which is outside its vocabulary [0, {tokenizer.size})")  # fmt: skip
                ids = np.array([*ids, *end] if last else ids, dtype)
                tokens.write(ids.tobytes())
                size += len(ids)
                for file in [ends] * last + [parts] * (parts is not None and len(ids) > 0):
                    file.write(np.array(size, "<i8").tobytes())
    written = np.memmap(folder / "tokens.bin", dtype, "r", shape=(size,))
    sums = [zlib.crc32(written[start : start + STRETCH]) for start in range(0, size, STRETCH)]
    index = {"tokens": size, "dtype": dtype, "sums": sums, "notes": notes}
    for file in ("ends", "parts") if parts else ("ends",):
        index[file] = zlib.crc32((folder / f"{file}.bin").read_bytes())
    (folder / "index.json").write_text(json.dumps(index))


def _cut(documents, cut):
    for blocks in documents:
        parts = cut("".join(blocks)) or [""]
        yield from zip(parts, [False] * (len(parts) - 1) + [True])


def _batches(pieces):
    """Lists of pieces of BATCH characters and a piece."""
    batch, size = [], 0
    for text, last in pieces:
        batch.append((text, last))
        size += len(text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encodable(tokenizer, newline, documents):
    """Cuts documents into parts of bounded length, where the tokenizer allows it, without changing their ids.

    Args:
        tokenizer: Tokenizer of the documents.
        newline: text that replaces each line end before encoding.
        documents: iterables of blocks of text.

    Returns:
        a tokenizer, and an iterator of pairs (part, whether it is the last of its document): the ids that this
        tokenizer returns for the parts of a document, concatenated, are the ids of the document.
    """
    cuts, in_normalized = cuts_of(tokenizer.json, newline)
    if in_normalized:
        documents = map(functools.partial(normalized, tokenizer.normalize, newline), documents)
        tokenizer, newline = tokenizer.bare, "\n"
    parts = (part for blocks in documents for part in cuts.parts(blocks))
    return tokenizer, ((text.replace("\n", newline), last) for text, last in parts)


def pieces(raw, base, field, notes, cuts=LINES):
    """Cuts the documents of a split into parts; yields pairs (part, whether it is the last of its document).

    Raises:
        UserError: 3 for damaged data.
    """
    for blocks in documents_of(raw, base, field, notes):
        yield from cuts.parts(blocks)


def documents_of(raw, base, field, notes):
    """Returns an iterator over the documents of a split, each an iterable of blocks of text.

    Args:
        raw: Dataset whose sources are of records {field: bytes}, or such as research.data.files.Documents.
        base: the split.

    Raises:
        UserError: 3 for damaged data.
    """
    source = raw.open(base)
    return source.documents() if hasattr(source, "documents") else _records(raw, base, source, field, notes)


def _records(raw, base, source, field, notes):
    for start in range(0, len(source), CHUNK):
        examples = read_records(raw, base, source, list(range(start, min(start + CHUNK, len(source)))))
        yield from ([text] for text in texts(examples, field, notes))


def read_records(raw, base, source, records):
    """The records of a split by their numbers, rising.

    Raises:
        UserError: 3 for damaged data.
    """
    try:
        return source.__getitems__(records)
    except Exception as error:  # whatever a damaged shard makes its reader raise
        raise UserError(
            3,
            f"data set {raw.name}, split {base}, records {records[0]} to {records[-1]}: cannot be read: "
            f"{type(error).__name__}: {error}",
        ) from error


def texts(examples, field, notes):
    """The texts of a field; bytes that are no UTF-8 are replaced, and such texts counted."""
    found = []
    for example in examples:
        try:
            found.append(example[field].decode())
        except UnicodeDecodeError:
            found.append(example[field].decode(errors="replace"))
            count(notes, NOT_UTF8, 1)
    return found


def count(notes, what, n):
    if n:
        notes[what] = notes.get(what, 0) + n
