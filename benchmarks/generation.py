"""Text out of a GPT, beside transformers' `generate`, in one interleaved run.

    pip install -r requirements-bench.txt
    python -m benchmarks.generation --rounds=7 --seconds=3

GPT-2's form with 6 layers of width 384, 6 heads, context 256 and 69 tokens, float32, fresh weights: 200 tokens behind a
prompt of 32, the likeliest at each step, for one text and for eight at once. Ours is what `experiments.generate` runs,
piece by piece; the peer is GPT2LMHeadModel with its cache. Counted are tokens written. Each side is a process of its
own that works in turns of some seconds, the others waiting. Writes results/speed_generation.json, from which `make
results` makes README's table.
"""

from typing import NamedTuple

import numpy as np

from benchmarks.turns import again, compare

LAYERS, HEADS, WIDTH, CONTEXT, VOCABULARY = 6, 6, 384, 256, 69
PROMPT, TOKENS = 32, 200
WORKLOADS = {"text_1": 1, "text_8": 8}


class Ids(NamedTuple):
    """None of the tokens is a special one."""

    pad: int = -1
    begin: int = -1
    end: int = -1


def prompts(batch):
    return np.random.default_rng(0).integers(4, VOCABULARY, (batch, PROMPT))


def ours(workload):
    import jax
    import jax.numpy as jnp

    from experiments.command import process_settings
    from research.generation import GREEDY
    from research.inference import continuation
    from research.models.decoder import Decoder

    process_settings()
    batch, ids = WORKLOADS[workload], Ids()
    model = Decoder(layers=LAYERS, heads=HEADS, width=WIDTH, context=CONTEXT, vocabulary=VOCABULARY)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
    given = prompts(batch).tolist()

    def write():
        pieces = list(continuation.write(model, variables, given, TOKENS, ids, how=GREEDY))
        assert sum(piece.shape[1] for piece in pieces) == TOKENS

    return again(write, batch * TOKENS)


def transformers(workload):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    batch = WORKLOADS[workload]
    size = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "n_positions": CONTEXT, "vocab_size": VOCABULARY}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0)).eval()
    given = torch.from_numpy(prompts(batch))
    length = {"min_new_tokens": TOKENS, "max_new_tokens": TOKENS}

    def write():
        with torch.inference_mode():
            found = model.generate(
                given, do_sample=False, pad_token_id=0, attention_mask=torch.ones_like(given), **length
            )
        assert found.shape == (batch, PROMPT + TOKENS)

    return again(write, batch * TOKENS)


if __name__ == "__main__":
    sides = {"ours": ours, "transformers": transformers}
    compare(__doc__, "benchmarks.generation", sides, WORKLOADS, "speed_generation.json", "tokens",
            {"transformers": "transformers"})  # fmt: skip
