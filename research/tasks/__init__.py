"""Tasks by name: TASKS[name](spec, **arguments) -> Task. A new one is a file and a line here."""

from research.tasks.answer_span import answer_span
from research.tasks.classify import classify_images, classify_text
from research.tasks.embed_text import embed_text
from research.tasks.masked_lm import masked_lm
from research.tasks.next_token import next_token
from research.tasks.several import several
from research.tasks.tag_tokens import tag_tokens
from research.tasks.translate import translate
from research.tasks.word_vectors import cbow, glove, skipgram

TASKS = {
    "answer_span": answer_span,
    "cbow": cbow,
    "classify_images": classify_images,
    "classify_text": classify_text,
    "embed_text": embed_text,
    "glove": glove,
    "masked_lm": masked_lm,
    "next_token": next_token,
    "skipgram": skipgram,
    "several": several,
    "tag_tokens": tag_tokens,
    "translate": translate,
}
