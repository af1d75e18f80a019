"""Recurrent sequence-to-sequence beside PyTorch, in one interleaved run: training, and translating.

    pip install -r requirements-bench.txt
    python -m benchmarks.recurrent --rounds=9

Training: embedding 128, hidden 128, 2 layers, source and target of 100 tokens, batch 64, vocabulary 100, Adam; counted
are target tokens. Both sides compute the same in each row: without attention; with the context behind the recurrence
("additive"), where PyTorch runs nn.GRU over the whole target and attends after it; and with the context fed on
("additive_fed"), where it steps through the target by GRU cells. Translating: the last of these networks, 64 sources of
100 tokens, outputs of up to 100 tokens, greedy and by a beam of 4; counted are sentences, and the peer is
PyTorch's step by step. Each side is a process of its own that works in turns of some seconds, the others waiting.
Writes results/speed_recurrent.json, from which `make results` makes README's table.
"""

import numpy as np

from benchmarks.turns import again, compare

BATCH, LENGTH, VOCABULARY, WIDTH, LAYERS = 64, 100, 100, 128, 2
WORKLOADS = {  # name: attention, input feeding, beam (0: training)
    "gru": ("none", False, 0),
    "gru_additive": ("additive", False, 0),
    "gru_additive_fed": ("additive", True, 0),
    "greedy": ("additive", True, 1),
    "beam_4": ("additive", True, 4),
}
STEPS_PER_CALL = 4


def tokens(rng):
    return rng.integers(4, VOCABULARY, (BATCH, LENGTH)).astype(np.int32)


def ours(workload):
    """The model, the task's loss and the one train step, on batches in memory."""
    import jax

    from experiments.command import process_settings
    from research import config as configs
    from research import sharding
    from research.data.dataset import Dataset
    from research.data.tokenize import BEGIN, END, PAD
    from research.models import MODELS
    from research.optimizers import make_optimizer
    from research.randomness import run_key
    from research.tasks import TASKS
    from research.train_step import make_init, make_train_step

    process_settings()
    attention, fed, beam = WORKLOADS[workload]
    named = {"model.name": "seq2seq", "task.name": "translate", "data.name": "addition", "optimizer.name": "adam"}
    own = {"model.vocabulary": VOCABULARY, "model.attention": attention, "model.input_feeding": fed}
    size = {"model.width": WIDTH, "model.embedding": WIDTH, "model.layers": LAYERS, "task.beam_size": max(beam, 1)}
    rest = {"train.steps": 10**6, "train.steps_per_call": STEPS_PER_CALL, "data.batch_size": BATCH}
    config = configs.override(configs.base(), {**named, **own, **size, **rest})
    ids = type("Ids", (), {"pad": PAD, "begin": BEGIN, "end": END, "size": VOCABULARY})
    features = {field: ((LENGTH,), np.dtype("int32")) for field in ("source", "target")}
    spec = Dataset("random", features, {"train": BATCH}, None, tokenizer=ids, sequences=tuple(features))
    model = MODELS["seq2seq"](**configs.arguments("model", config))
    task = TASKS["translate"](spec, **configs.arguments("task", config))
    times = configs.durations(config, BATCH)
    optimizer = make_optimizer(config.optimizer, configs.arguments("optimizer", config), times)
    mesh = sharding.make_mesh()
    whole, rng = sharding.replicated(mesh), np.random.default_rng(0)
    state = jax.jit(make_init(model, task, spec, config, optimizer), out_shardings=whole)(run_key(0))
    mask = np.ones((STEPS_PER_CALL, BATCH), np.float32)
    batch = {field: np.stack([tokens(rng)] * STEPS_PER_CALL) for field in features} | {"mask": mask}
    step, key = make_train_step(model, task, optimizer, config, mesh), sharding.place(run_key(0), whole)
    predict = jax.jit(lambda variables, source: task.predict(model, variables, {"source": source}))

    def train():
        nonlocal state
        state, metrics = step(state, {}, batch, key, STEPS_PER_CALL)
        jax.block_until_ready(metrics)

    def translate():
        jax.block_until_ready(predict({"params": state.params}, batch["source"][0]))

    return again(translate, BATCH) if beam else again(train, STEPS_PER_CALL * BATCH * LENGTH)


def torch_network(attention, fed):
    """The same network in PyTorch."""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.source, self.target = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(VOCABULARY, WIDTH)
            self.encoder = nn.GRU(WIDTH, WIDTH, LAYERS, batch_first=True)
            self.decoder = None if fed else nn.GRU(WIDTH, WIDTH, LAYERS, batch_first=True)
            self.cells = nn.ModuleList(nn.GRUCell(2 * WIDTH if i == 0 else WIDTH, WIDTH) for i in range(LAYERS))
            self.query, self.key = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
            self.score, self.output = nn.Linear(WIDTH, 1, bias=False), nn.Linear(2 * WIDTH, WIDTH, bias=False)
            self.head = nn.Linear(WIDTH, VOCABULARY)

        def step(self, memory, keys, states, fed, x):
            x, after = torch.cat([x, fed], dim=-1), []
            for cell, state in zip(self.cells, states):
                x = cell(x, state)
                after.append(x)
            return self.attend(memory, x, self.scores(keys, self.query(x))), after

        def scores(self, keys, query):
            return self.score(torch.tanh(query[:, None] + keys))[..., 0]

        def attend(self, memory, x, scores):
            context = torch.einsum("b...s,bsh->b...h", torch.softmax(scores, dim=-1), memory)
            return torch.tanh(self.output(torch.cat([context, x], dim=-1)))

        def forward(self, source, before):
            memory, states = self.encoder(self.source(source))
            x = self.target(before)
            if self.decoder is not None:
                h = self.decoder(x, states)[0]
                if attention == "none":
                    return self.head(h)
                # A query at a time: the tanh of all would be [batch, target, source, hidden].
                keys, queries = self.key(memory), self.query(h)
                scores = torch.stack([self.scores(keys, query) for query in queries.unbind(1)], dim=1)
                return self.head(self.attend(memory, h, scores))
            keys, states, outputs = self.key(memory), list(states), []
            fed = torch.zeros(x.shape[0], WIDTH)
            for t in range(x.shape[1]):
                fed, states = self.step(memory, keys, states, fed, x[:, t])
                outputs.append(fed)
            return self.head(torch.stack(outputs, dim=1))

    return Network()


def torch_search(network, source, beam):
    """Log-probabilities of the best; every hypothesis runs to the last step, as ours does on random weights."""
    import torch

    memory, states = network.encoder(network.source(source))
    memory = memory.repeat_interleave(beam, 0)
    keys, states = network.key(memory), [state.repeat_interleave(beam, 0) for state in states]
    fed, token = torch.zeros(len(memory), WIDTH), torch.full((len(memory),), 2)
    sums = torch.tensor([0.0] + [-1e9] * (beam - 1)).repeat(len(source), 1)
    written = torch.zeros(len(memory), 0, dtype=torch.long)
    for _ in range(LENGTH):
        fed, states = network.step(memory, keys, states, fed, network.target(token))
        log_probs = torch.log_softmax(network.head(fed), dim=-1).reshape(len(source), beam, -1)
        sums, place = (sums[..., None] + log_probs).reshape(len(source), -1).topk(beam)
        parent = (place // VOCABULARY + torch.arange(len(source))[:, None] * beam).reshape(-1)
        token = (place % VOCABULARY).reshape(-1)
        if beam > 1:
            fed, states, written = fed[parent], [state[parent] for state in states], written[parent]
        written = torch.cat([written, token[:, None]], dim=1)
    return sums


def torch(workload):
    """The same work in PyTorch eager."""
    import torch
    from torch import nn

    attention, fed, beam = WORKLOADS[workload]
    network, rng = torch_network(attention, fed), np.random.default_rng(0)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    source, target = torch.from_numpy(tokens(rng)).long(), torch.from_numpy(tokens(rng)).long()
    before = nn.functional.pad(target[:, :-1], (1, 0), value=2)

    def train():
        optimizer.zero_grad()
        logits = network(source, before)
        nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), target.reshape(-1)).backward()
        optimizer.step()

    def translate():
        with torch.inference_mode():
            torch_search(network, source, beam)

    return again(translate, BATCH) if beam else again(train, BATCH * LENGTH)


if __name__ == "__main__":
    sides = {"ours": ours, "torch": torch}
    compare(
        __doc__,
        "benchmarks.recurrent",
        sides,
        WORKLOADS,
        "speed_recurrent.json",
        "tokens or sentences",
        {"torch": "torch"},
    )
