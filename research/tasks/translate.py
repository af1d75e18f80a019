"""One text from another: translation, sums, any pairs of source and target."""

import jax
import jax.numpy as jnp
import numpy as np

from research.errors import UserError
from research.generation import search
from research.tasks.losses import cross_entropy, is_in_top, masked
from research.tasks.task import Task, apply


def translate(
    spec,
    *,
    label_smoothing: float = 0.0,
    sampling_rate: float = 0.0,
    beam_size: int = 1,
    length_penalty: float = 1.0,
    bleu_tokenizer: str = "13a",
):
    """Cross-entropy of the target's tokens; of what the model makes of the source alone exact match, and BLEU and chrF
    where there are references.

    Batches hold source and target int32[B, T], closed by an end and padded, mask float32[B], and where the target is
    language reference uint8[B, R], its text in UTF-8. Each token of a target counts once, its end too.

    Args:
        sampling_rate: of scheduled sampling in training; 0: teacher forcing.
        beam_size: 1 is greedy.
        length_penalty: a hypothesis' score is its log-probability over its length to this power.
        bleu_tokenizer: see make_bleu.
    """
    if "source" not in spec.features:
        raise UserError(
            2, f"config.task.name: translate wants pairs of texts; {spec.name} has {', '.join(spec.features)}"
        )
    longest, ids, language = spec.features["target"][0][0], spec.tokenizer, "reference" in spec.features
    if beam_size > spec.vocabulary:
        raise UserError(2, f"config.task.beam_size: {beam_size} is more than the {spec.vocabulary} tokens there are")

    def inputs(spec, config):
        shapes = {"source": "source", "source_mask": "source", "before": "target", "mask": "target"}
        return {name: jax.ShapeDtypeStruct((1, *spec.features[field][0]), jnp.int32) for name, field in shapes.items()}

    def model_inputs(batch):
        before = jnp.pad(batch["target"][:, :-1], ((0, 0), (1, 0)), constant_values=ids.begin)
        return batch["source"], batch["source"] != ids.pad, before, batch["target"] != ids.pad

    def sums(logits, batch, smoothing=0.0):
        mask = (batch["target"] != ids.pad) * batch["mask"][:, None]
        losses = masked(cross_entropy(logits, batch["target"], smoothing), mask)
        return losses, {"accuracy": masked(is_in_top(logits, batch["target"], 1), mask)}

    def loss(model, variables, batch, keys, train):
        own = {"train": train, "sampling_rate": sampling_rate if train else 0.0}
        logits, model_state = apply(model, variables, *model_inputs(batch), keys=keys, **own)
        losses, metrics = sums(logits, batch, label_smoothing)
        return {"loss": losses}, metrics, model_state

    def generate(model, variables, source):
        own = {"beam_size": beam_size, "length_penalty": length_penalty}
        return generate_from(model, variables, source, longest, ids, **own)

    def evaluate(model, variables, batch, keys):
        logits, _ = apply(model, variables, *model_inputs(batch))
        losses, metrics = sums(logits, batch)
        found = generate(model, variables, batch["source"])[0][:, 0]
        exact = masked(is_equal(found, batch["target"], ids), batch["mask"])
        found = {"translation": found, "reference": batch["reference"]} if language else {}
        return {"loss": losses, "perplexity": losses, **metrics, "exact_match": exact}, found

    def score(arrays):
        if not language:
            return {}
        return text_scores(spec.tokenizer, arrays["translation"], arrays["reference"], bleu_tokenizer)

    def predict(model, variables, batch):
        tokens, scores = generate(model, variables, batch["source"])
        return {"tokens": tokens, "scores": scores}

    return Task(inputs, loss, evaluate, score, predict)


def generate_from(model, variables, source, max_len, ids, **settings):
    """What a model with `encode` and `decode` makes of source int32[B, S]; see research.generation.search."""
    memory, carry = model.apply(variables, source, source != ids.pad, method="encode")

    def decode(carry, token):  # the memory stands outside of what a beam copies: its hypotheses share it
        logits, _, carry = model.apply(variables, memory, carry, token, method="decode")
        return logits, carry

    return search(decode, carry, jnp.full(len(source), ids.begin, jnp.int32), max_len, ids, **settings)


def is_equal(found, target, ids):
    """float32[B]: 1 where two rows of tokens are the same, whatever their padding.

    A target that was cut, or has a token that is unknown, is not all of its text: nothing equals it.
    """
    wide = max(found.shape[1], target.shape[1])
    fill = lambda x: jnp.pad(x, ((0, 0), (0, wide - x.shape[1])), constant_values=ids.pad)
    whole = (target == ids.end).any(axis=1) & (target != ids.unknown).all(axis=1)
    return ((fill(found) == fill(target)).all(axis=1) & whole).astype(jnp.float32)


def text_scores(tokenizer, translations, references, bleu_tokenizer="13a"):
    """Computes BLEU and chrF over a complete split with sacreBLEU (Post 2018, arXiv:1804.08771), 0 to 100.

    Args:
        translations: int32[N, T].
        references: uint8[N, R], UTF-8, padded with zeros, which no text has.
        bleu_tokenizer: sacreBLEU's, by which BLEU counts words; see `make_bleu`.
    """
    from sacrebleu.metrics import CHRF

    found = [tokenizer.decode(ids) for ids in translations]
    texts = [bytes(row[row != 0]).decode(errors="replace") for row in np.asarray(references, np.uint8)]
    return {
        "bleu": make_bleu(bleu_tokenizer).corpus_score(found, [texts]).score,
        "chrf": CHRF().corpus_score(found, [texts]).score,
    }


def make_bleu(tokenizer):
    """Builds sacreBLEU's BLEU with one of its tokenizers: 13a, its default, zh, ja-mecab, char, flores200 and others.

    Raises:
        UserError: 2, for a tokenizer whose package or model is not installed.
    """
    from sacrebleu.metrics import BLEU

    try:
        return BLEU(tokenize=tokenizer)
    except Exception as error:  # the tokenizers import packages, and download models
        raise UserError(2, f"config.task.bleu_tokenizer: {tokenizer}: {error}") from error
