"""Training steps of a BERT beside PyTorch's and transformers', in one interleaved run.

    pip install -r requirements-bench.txt
    python -m benchmarks.bert --rounds=9

BERT-mini (Turc et al. 2019): 4 layers of width 256, pairs of 128 tokens, batch 32, a vocabulary of 8192; masked tokens
and next sentences, without dropout. AdamW, the gradient clipped at a norm of 1. Ours reads WikiText-2 through the
project's own pipeline and draws masks anew in each step, in four microbatches and five steps a call, which change no
number beyond rounding. The peers read a batch in memory that is masked already: a compact module with
scaled_dot_product_attention that scores the 20 masked places alone, as ours does, eager and by torch.compile; and
transformers' BertForPreTraining, which scores all 128. All of them use the fused optimizer. In the row of bfloat16 ours
computes its products in it, PyTorch by autocast; parameters are float32. Counted are tokens, padding too. Each side is
a process of its own that works in turns of a second. Writes results/speed_bert.json, from which `make results` makes
README's table.
"""

from benchmarks.turns import again, compare, ours

LAYERS, HEADS, WIDTH, LENGTH, BATCH, VOCABULARY, SCORED = 4, 4, 256, 128, 32, 8192, 20
WORKLOADS = {  # name: dtype, settings of ours
    "bert_mini": ("float32", {"train.microbatches": 4, "train.steps_per_call": 5}),
    "bert_mini_bfloat16": ("bfloat16", {"train.microbatches": 4, "train.steps_per_call": 5}),
}


def ours_on_pairs(workload):
    dtype, settings = WORKLOADS[workload]
    tokens = lambda setup, _: setup.config.train.steps_per_call * BATCH * LENGTH
    return ours("wikitext_bert", {"model.dropout": 0.0, "model.dtype": dtype, **settings}, tokens)


def torch_bert():
    """The same network in PyTorch: (tokens, parts, places) -> logits of the places, logits of whether it follows."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_norm, self.mlp_norm = nn.LayerNorm(WIDTH, 1e-12), nn.LayerNorm(WIDTH, 1e-12)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x, visible):
            B, T, D = x.shape
            heads_first = lambda y: y.view(B, T, HEADS, D // HEADS).transpose(1, 2)
            q, k, v = map(heads_first, self.qkv(x).split(D, dim=2))
            y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=visible)
            x = self.attention_norm(x + self.out(y.transpose(1, 2).reshape(B, T, D)))
            return self.mlp_norm(x + self.down(nn.functional.gelu(self.up(x))))

    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = {"tokens": VOCABULARY, "positions": LENGTH, "parts": 2}
            self.tables = nn.ModuleDict({name: nn.Embedding(size, WIDTH) for name, size in sizes.items()})
            self.norm, self.transform_norm = nn.LayerNorm(WIDTH, 1e-12), nn.LayerNorm(WIDTH, 1e-12)
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.pooler, self.follows = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)
            self.transform, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, VOCABULARY)
            self.head.weight = self.tables["tokens"].weight

        def forward(self, tokens, parts, visible, places):
            given = {"tokens": tokens, "positions": torch.arange(LENGTH)[None], "parts": parts}
            x = self.norm(sum(self.tables[name](x) for name, x in given.items()))
            for block in self.blocks:
                x = block(x, visible)
            y = torch.take_along_dim(x, places[..., None], dim=1)
            y = self.transform_norm(nn.functional.gelu(self.transform(y)))
            return self.head(y), self.follows(torch.tanh(self.pooler(x[:, 0])))

    return Bert()


def bert_batch():
    """A batch of pairs, masked already: tokens, parts, mask, places, their tokens, and which pairs follow."""
    import torch

    tokens = torch.randint(5, VOCABULARY, (BATCH, LENGTH))
    parts = (torch.arange(LENGTH) >= LENGTH // 2).long().expand(BATCH, LENGTH)
    places = torch.rand(BATCH, LENGTH).argsort(dim=1)[:, :SCORED]
    mask = torch.arange(LENGTH) < torch.randint(LENGTH - 40, LENGTH + 1, (BATCH, 1))  # padding, as real pairs have
    targets = tokens.gather(1, places)
    return tokens.scatter(1, places, 4), parts, mask, places, targets, torch.randint(0, 2, (BATCH,))


def peer(workload, make):
    """A step of a network in PyTorch.

    Args:
        make: batch -> a network, and what gives its loss.
    """
    import torch

    (dtype, _), batch = WORKLOADS[workload], bert_batch()
    network, loss_of = make(batch)
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01, fused=True)

    def train():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return again(train, LENGTH * BATCH)


def places_alone(batch, compiled):
    import torch

    tokens, parts, mask, places, targets, follows = batch
    network, cross_entropy = torch_bert(), torch.nn.functional.cross_entropy
    forward = torch.compile(network) if compiled else network

    def loss_of():
        logits, next_logits = forward(tokens, parts, mask[:, None, None], places)
        return cross_entropy(logits.flatten(0, 1), targets.flatten()) + cross_entropy(next_logits, follows)

    return network, loss_of


def all_places(batch):
    import torch
    from transformers import BertConfig, BertForPreTraining

    tokens, parts, mask, places, targets, follows = batch
    sizes = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "hidden_size": WIDTH, "vocab_size": VOCABULARY}
    sizes |= {"intermediate_size": 4 * WIDTH, "max_position_embeddings": LENGTH}
    network = BertForPreTraining(BertConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    labels = torch.full_like(tokens, -100).scatter(1, places, targets)
    own = {"attention_mask": mask.long(), "token_type_ids": parts, "labels": labels, "next_sentence_label": follows}
    return network, lambda: network(tokens, **own).loss


if __name__ == "__main__":
    sides = {
        "ours": ours_on_pairs,
        "torch": lambda workload: peer(workload, lambda batch: places_alone(batch, False)),
        "torch_compiled": lambda workload: peer(workload, lambda batch: places_alone(batch, True)),
        "transformers": lambda workload: peer(workload, all_places),
    }
    needs = {"torch": "torch", "torch_compiled": "torch", "transformers": "transformers"}
    compare(__doc__, "benchmarks.bert", sides, WORKLOADS, "speed_bert.json", "tokens", needs)
