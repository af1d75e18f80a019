"""A GPT of the later form on the source of Python's own standard library, which every machine has: no download.

Rotary positions, RMS norm, SwiGLU, no biases: Touvron et al. 2023, section 2.2 (arXiv:2302.13971); grouped queries:
Ainslie et al. 2023 (arXiv:2305.13245). Nothing is published of this text.

python -m experiments.train --config=configs/stdlib_gpt.py:cpu --workdir=runs/stdlib_gpt
python -m experiments.train --config=configs/stdlib_gpt.py

Byte-pair encoding learnt on the train split; a file in twenty is validation and one in twenty test. Bits per byte
compare over tokenizers; over versions of Python, whose source is another text, nothing does.

size   hardware                 time   test bits per byte: mean ± std (seeds)
cpu    2 cores (AMD EPYC)       3:04   1.489 ± 0.023 (3)
"""

from research.config import base, sized


def get_config(size="base"):
    config = base()
    config.data.name = "stdlib"
    config.data.tokenizer = "bpe"
    config.data.vocabulary_size = 4096
    config.data.max_len = 256
    config.data.batch_size = 64
    config.data.eval_batch_size = 64
    form = {"positions": "rotary", "norm": "rms", "activation": "swiglu", "bias": False, "kv_heads": 2}
    large = {"layers": 6, "heads": 6, "width": 384, "hidden": 1024, "context": 256}
    config.model = {"name": "decoder", **large, **form, "dropout": 0.1}
    config.task.name = "next_token"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.b2 = 0.99
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.train.steps = 5000
    config.eval = {"every_steps": 250, "metric": "loss"}
    config.log.every_steps = 50
    cpu = {
        "data.max_len": 128,
        "data.vocabulary_size": 1024,
        "data.batch_size": 16,
        "model.layers": 4,
        "model.heads": 4,
        "model.width": 128,
        "model.hidden": 352,
        "model.context": 128,
        "model.dropout": 0.0,
        "optimizer.learning_rate": 3e-3,
        "train.steps": 2000,
        "train.steps_per_call": 10,
        "eval.every_steps": 500,
    }
    tiny = {
        "data.max_len": 32,
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
        "train.steps": 12,
        "eval.every_steps": 6,
        "checkpoint.every_steps": 6,
        "log.every_steps": 3,
    }
    return sized(config, size, cpu=cpu, tiny=tiny)


def claims():
    return [{"size": "cpu", "metric": "bits_per_byte"}]  # nothing is published of this text
