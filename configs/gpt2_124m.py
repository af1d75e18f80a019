"""GPT-2 of 124M parameters on a corpus of your own: Radford et al. 2019, in nanoGPT's setting for OpenWebText.

python -m experiments.train --config=configs/gpt2_124m.py --workdir=runs/gpt2_124m
python -m experiments.train --config=configs/gpt2_124m.py:cpu

The corpus is a folder of text files, a document each, with train and validation in it: openwebtext, or what
--config.data.folder names. Karpathy 2022 (nanoGPT, config/train_gpt2.py) reaches a validation loss of about 2.85 on
OpenWebText, in four days of eight A100 of 40 GB; the optimizer's setting is his, with half a million tokens a step and
600,000 steps. Two things differ: biases are kept (--config.model.bias=false drops them, as his default does), and the
vocabulary has GPT-2's size, so that the parameters are its 124,439,808, but is learnt on the corpus: compare bits per
byte. The size cpu is the same network for a few steps on the source of Python's standard library, and shows that it
runs, no more. No GPU was at hand: base was not run, and its tokens a second were not measured.
"""

from research.config import base, sized


def get_config(size="base"):
    config = base()
    config.data.name = "text"
    config.data.folder = "openwebtext"
    config.data.tokenizer = "bpe"
    config.data.vocabulary_size = 50257
    config.data.max_len = 1024
    config.data.batch_size = 480
    config.data.eval_batch_size = 16
    config.data.splits.test = None
    config.model = {"name": "decoder", "dtype": "bfloat16"}  # whose other fields are GPT-2's by default
    config.task.name = "next_token"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 6e-4
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.1
    config.optimizer.decayed = ("kernel", "embedding")  # all matrices, as there
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 2000
    config.optimizer.end_factor = 0.1
    config.train.steps = 600_000
    config.train.microbatches = 40
    config.eval = {"every_steps": 1000, "metric": "loss"}
    config.log.every_steps = 50
    small = {
        "data.name": "stdlib",
        "data.vocabulary_size": 50257,
        "data.batch_size": 2,
        "data.eval_batch_size": 2,
        "data.splits.validation": "validation[:8]",
        "train.microbatches": 1,
        "optimizer.warmup_steps": 2,
        "log.every_steps": 1,
    }
    cpu = {**small, "model.dtype": "float32", "train.steps": 10, "eval.every_steps": 10}
    tiny = {
        **small,
        "data.max_len": 32,
        "data.batch_size": 8,
        "data.vocabulary_size": 300,
        "data.splits.train": "train[:64]",
        "data.splits.test": "test[:8]",
        "model.layers": 1,
        "model.heads": 2,
        "model.width": 16,
        "model.context": 32,
        "optimizer.learning_rate": 1e-2,
        "train.steps": 12,
        "eval.every_steps": 6,
        "checkpoint.every_steps": 6,
    }
    return sized(config, size, cpu=cpu, tiny=tiny)


def claims():
    published = {"published": 2.85, "met": "at_most", "paper": "Karpathy 2022, nanoGPT", "row": "OpenWebText, 124M"}
    own = {"split": "validation", "metric": "loss", "also": ("bits_per_byte",), "seeds": 2, "gpu": True}
    return [{"size": "base", "needs": "the folder openwebtext", **published, **own}]
