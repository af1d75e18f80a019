"""Training steps of two GPTs beside PyTorch's, in one interleaved run.

    pip install -r requirements-bench.txt
    python -m benchmarks.transformers --rounds=9

GPT-2's form (learned positions, LayerNorm, tanh GELU, biases, a tied head) on characters, without dropout: 4 layers of
width 128, context 64, batch 12; and 6 layers of 384, context 256, batch 16. AdamW, the gradient clipped at a norm of 1.
Ours reads tiny_shakespeare through the project's own pipeline, with the settings named in WORKLOADS, which change no
number beyond rounding; the peer is a compact module with scaled_dot_product_attention and the fused optimizer, on a
batch in memory, eager and by torch.compile. In the rows of bfloat16 ours computes its products in it, PyTorch by
autocast; parameters are float32. Counted are tokens. Each side is a process of its own that works in turns of a second.
Writes results/speed_transformers.json, from which `make results` makes README's table.
"""

from benchmarks.turns import again, compare, ours

SMALL, MIDDLE = (4, 4, 128, 64, 12), (6, 6, 384, 256, 16)  # layers, heads, width, context, batch
WORKLOADS = {  # name: size, dtype, settings of ours
    "gpt_4x128": (SMALL, "float32", {"train.steps_per_call": 10}),
    "gpt_6x384": (MIDDLE, "float32", {"train.microbatches": 8}),
    "gpt_4x128_bfloat16": (SMALL, "bfloat16", {"train.steps_per_call": 10}),
    "gpt_6x384_bfloat16": (MIDDLE, "bfloat16", {"train.microbatches": 8}),
}
VOCABULARY = 69  # 65 characters and four of ours


def ours_on_text(workload):
    (layers, heads, width, context, batch), dtype, settings = WORKLOADS[workload]
    size = {"model.layers": layers, "model.heads": heads, "model.width": width, "model.context": context}
    form = {"model.positions": "learned", "model.bias": True, "model.dropout": 0.0, "model.dtype": dtype}
    data = {"data.max_len": context, "data.batch_size": batch}
    tokens = lambda setup, _: setup.config.train.steps_per_call * batch * context
    return ours("shakespeare_gpt", {**size, **form, **data, **settings}, tokens)


def torch_gpt(layers, heads, width, context):
    """The same network in PyTorch."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            B, T, D = x.shape
            heads_first = lambda y: y.view(B, T, heads, D // heads).transpose(1, 2)
            q, k, v = map(heads_first, self.qkv(self.attention_norm(x)).split(D, dim=2))
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(B, T, D))
            return x + self.down(nn.functional.gelu(self.up(self.mlp_norm(x)), approximate="tanh"))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(context, width)
            self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(layers))), nn.LayerNorm(width)
            self.head = nn.Linear(width, VOCABULARY, bias=False)
            self.head.weight = self.tokens.weight

        def forward(self, tokens):
            x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
            return self.head(self.norm(self.blocks(x)))

    return GPT()


def torch(workload, compiled):
    """The same work in PyTorch."""
    import torch

    (*size, context, batch), dtype, _ = WORKLOADS[workload]
    network = torch_gpt(*size, context)
    forward, parameters = torch.compile(network) if compiled else network, list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
    text = torch.randint(4, VOCABULARY, (batch, context + 1))

    def train():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = forward(text[:, :-1])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return again(train, batch * context)


if __name__ == "__main__":
    sides = {
        "ours": ours_on_text,
        "torch": lambda workload: torch(workload, False),
        "torch_compiled": lambda workload: torch(workload, True),
    }
    needs = {"torch": "torch", "torch_compiled": "torch"}
    compare(__doc__, "benchmarks.transformers", sides, WORKLOADS, "speed_transformers.json", "tokens", needs)
