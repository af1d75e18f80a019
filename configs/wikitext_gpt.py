"""A small GPT of the later form on WikiText-2, byte-pair encoded, articles packed. Merity et al. 2016 (1609.07843).

Rotary positions, RMS norm, SwiGLU, no biases: Touvron et al. 2023, section 2.2 (arXiv:2302.13971). Documents know
nothing of each other where they share a window, and each begins at position 0.

python -m experiments.train --config=configs/wikitext_gpt.py:cpu --workdir=runs/wikitext_gpt
python -m experiments.train --config=configs/wikitext_gpt.py

Perplexity is a token of this encoding's and compares with no other; bits per byte do, with wikitext2_lstm too. A window
of evaluation reads half of it before what it scores. Nothing is published of this size and text.

size   hardware                 time   test perplexity / test bits per byte: mean ± std (seeds)
cpu    2 cores (AMD EPYC)      10:50   30.92 / 1.415 (1†)
"""

from research.config import base, sized


def get_config(size="base"):
    config = base()
    config.data.name = "wikitext2"
    config.data.tokenizer = "bpe"
    config.data.vocabulary_size = 8192
    config.data.packed = True
    config.data.max_len = 256
    config.data.context = 128
    config.data.batch_size = 64
    config.data.eval_batch_size = 64
    form = {"positions": "rotary", "norm": "rms", "activation": "swiglu", "bias": False, "kv_heads": 2}
    large = {"layers": 6, "heads": 6, "width": 384, "hidden": 1024, "context": 256}
    config.model = {"name": "decoder", **large, **form, "dropout": 0.3}
    config.task.name = "next_token"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.b2 = 0.99
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.train.epochs = 30.0
    config.eval = {"every_epochs": 1.0, "metric": "loss"}
    config.log.every_steps = 50
    cpu = {
        "data.max_len": 128,
        "data.context": 64,
        "data.vocabulary_size": 4096,
        "data.batch_size": 16,
        "model.layers": 4,
        "model.heads": 4,
        "model.width": 128,
        "model.hidden": 352,
        "model.context": 128,
        "model.dropout": 0.0,
        "optimizer.learning_rate": 3e-3,
        "train.epochs": 4.0,
        "train.steps_per_call": 10,
    }
    tiny = {
        "data.max_len": 32,
        "data.context": 8,
        "data.vocabulary_size": 300,
        "data.batch_size": 8,
        "data.splits.train": "train[:64]",
        "data.splits.validation": "validation[:8]",
        "data.splits.test": "test[:8]",
        "model.layers": 1,
        "model.dropout": 0.0,
        "model.heads": 4,
        "model.width": 16,
        "model.hidden": 32,
        "model.context": 32,
        "optimizer.learning_rate": 1e-2,
        "optimizer.warmup_steps": 2,
        "train.epochs": 2,
        "checkpoint.every_steps": 6,
        "log.every_steps": 3,
    }
    return sized(config, size, cpu=cpu, tiny=tiny)


def claims():
    return [{"size": "cpu", "metric": "perplexity", "also": ("bits_per_byte",)}]  # nothing is published of this size
