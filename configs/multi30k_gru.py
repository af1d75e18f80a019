"""German to English on Multi30k by a GRU with additive attention. Elliott et al. 2016 (arXiv:1605.00459), task 1.

A public word-level GRU with additive attention reaches 28.11 BLEU on test 2016, a small Transformer of the same series
36.52 (bentrevett/pytorch-seq2seq, 10 epochs). Both are lower-cased and counted on tokens of theirs, greedy, without
label smoothing; ours is sacreBLEU's on lower-cased plain text, by 4,000 byte pairs, a beam of 5 and smoothing 0.1.

python -m experiments.train --config=configs/multi30k_gru.py --workdir=runs/multi30k_gru
python -m experiments.train --config=configs/multi30k_gru.py:cpu
python -m experiments.train --config=configs/multi30k_gru.py:cpu --config.data.reverse=true --workdir=runs/en_de

size   hardware                 time   test BLEU: mean ± std (seeds)
cpu    2 cores (Intel(R) Xeon(R) Processor)   9:35   39.11 (1†)  at least 28.11: too few seeds
"""

from research.config import base, sized


def get_config(size="base"):
    config = base()
    config.data.name = "multi30k"
    config.data.tokenizer = "bpe"
    config.data.vocabulary_size = 4000
    config.data.normalize = ("lowercase",)  # as the published figures have it
    config.data.max_len = 40
    config.data.buckets = (14, 18, 24)
    config.data.batch_size = 128
    config.data.eval_batch_size = 256
    config.model = {
        "name": "seq2seq",
        "cell": "gru",
        "layers": 1,
        "width": 512,
        "embedding": 512,
        "tied": True,
        "bidirectional": True,
        "attention": "additive",
        "input_feeding": True,
        "dropout": 0.3,
    }
    config.task.name = "translate"
    config.task.label_smoothing = 0.1
    config.task.beam_size = 5
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 1.0
    config.optimizer.clip_norm = 1.0
    config.train.epochs = 20.0
    config.eval.every_epochs = 2.0
    config.eval.metric = "bleu"
    config.log.every_steps = 50
    cpu = {
        "model.width": 256,
        "model.embedding": 256,
        "model.input_feeding": False,  # attends for all steps at once: half as long again, else
        "optimizer.learning_rate": 2e-3,
        "train.epochs": 6,
    }
    tiny = {
        "data.vocabulary_size": 300,
        "data.buckets": (),
        "data.batch_size": 16,
        "data.eval_batch_size": 32,
        "data.splits.train": "train[:64]",
        "data.splits.validation": "validation[:16]",
        "data.splits.test": "test[:16]",
        "model.width": 16,
        "model.embedding": 16,
        "model.dropout": 0.0,
        "task.beam_size": 2,
        "train.epochs": 4,
        "eval.every_epochs": 2,
        "checkpoint.every_steps": 5,
        "log.every_steps": 4,
    }
    return sized(config, size, cpu=cpu, tiny=tiny)


def sweep_cell():
    return [{"model.cell": cell} for cell in ("rnn", "lstm", "gru")]


def sweep_attention():
    """What is attended to, and whether it is fed on."""
    kinds = [("none", False), ("additive", False), ("multiplicative", False), ("multiplicative", True)]
    return [{"model.attention": kind, "model.input_feeding": fed} for kind, fed in kinds]


def sweep_search():
    """How hypotheses are searched for and compared in evaluation."""
    return [{"task.beam_size": k, "task.length_penalty": p} for k, p in ((1, 1.0), (5, 0.0), (5, 0.6), (5, 1.0))]


def claims():
    published = {"metric": "bleu", "published": 28.11, "paper": "bentrevett/pytorch-seq2seq", "row": "GRU, attention"}
    return [{"size": "base", "gpu": True, **published}, {"size": "cpu", **published}]
