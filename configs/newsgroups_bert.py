"""Messages to twenty newsgroups, told apart by a BERT: 20 Newsgroups by date. Devlin et al. 2019 (arXiv:1810.04805).

Section 4.1: the encoder reads the text, and a linear layer on its pooled [CLS] tells the class; three epochs, batch 8.

`base` goes on from Hugging Face's BERT-base, out of a folder or their hub, and wants a GPU. 70.2 % are said to be
reached by it without headers, footers and quotes; by whom was not found. `cpu` begins with parameters drawn at random,
or with those of a run of wikitext_bert:cpu, whose form it has; it reads 128 tokens, for which that has positions.

python -m experiments.train --config=configs/newsgroups_bert.py:cpu --config.optimizer.learning_rate=5e-4 \
    --workdir=runs/newsgroups_bert
python -m experiments.train --config=configs/newsgroups_bert.py:cpu --config.init_from=runs/wikitext_bert \
    --config.data.tokenizer=runs/wikitext_bert/tokenizer.json
python -m experiments.train --config=configs/newsgroups_bert.py

--config.data.remove=headers,footers,quotes leaves out what gives groups away, `bare` below. `pretrained` is the second
command, `random` the first with the tokenizer of the second. README has a linear model beside them. Each has the
learning rate that was best for it on validation, one seed each: from pretrained parameters 60, 72 and 74 % at 5e-4,
1e-3 and 2e-3, from random ones 64, 65 and 38 % at 2.5e-4, 5e-4 and 1e-3.

size   hardware                 time   test accuracy, %: mean ± std (seeds)
cpu    2 cores (AMD EPYC)       2:06   52.8 ± 2.2 (3)  random
cpu    2 cores (AMD EPYC)       2:12   58.4 ± 3.0 (3)  pretrained
cpu    2 cores (AMD EPYC)       2:06   41.2 ± 2.4 (3)  random+bare
cpu    2 cores (AMD EPYC)       2:09   50.2 ± 0.4 (3)  pretrained+bare
"""

from research.config import base, sized
from research.studies.sweep import starts


def get_config(size="base"):
    config = base()
    config.init_from = config.data.tokenizer = "hf:bert-base-uncased"  # or hf:FOLDER
    config.data.name = "newsgroups20"
    config.data.max_len = 512
    config.data.batch_size = 8
    config.data.eval_batch_size = 32
    config.model = {"name": "encoder", "head": "label", "dropout": 0.1}
    config.task.name = "classify_text"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3e-5  # section A.3, as the batch and the epochs
    config.optimizer.weight_decay = 0.01
    config.optimizer.decayed = ("kernel", "embedding")  # all but norms and biases, as in BERT's code
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_epochs = 0.3
    config.train.epochs = 3.0
    config.log.every_steps = 100
    cpu = {
        "init_from": None,
        "data.tokenizer": "bert",
        "data.vocabulary_size": 4096,
        "data.max_len": 128,
        "model.layers": 4,
        "model.heads": 4,
        "model.width": 128,
        "model.context": 128,
        "model.positions": "rotary",
        "model.norm_first": True,
        "model.dropout": 0.0,
        "optimizer.decayed": ("kernel",),
        "optimizer.learning_rate": 2e-3,
        "train.steps_per_call": 10,
    }
    tiny = {
        "init_from": None,
        "data.tokenizer": "bert",
        "data.vocabulary_size": 70,
        "data.max_len": 32,
        "data.remove": ("headers", "footers", "quotes"),
        "data.splits.train": "train[:64]",
        "data.splits.validation": "train[64:96]",
        "data.splits.test": "test[:32]",
        "model.layers": 1,
        "model.dropout": 0.0,
        "model.heads": 4,
        "model.width": 16,
        "model.context": 32,
        "optimizer.learning_rate": 1e-2,
        "optimizer.warmup_epochs": 0.0,
        "checkpoint.every_steps": 10,
        "log.every_steps": 5,
    }
    return sized(config, size, cpu=cpu, tiny=tiny)


def sweep_start():
    """What pretraining brings: the same fine-tuning, from random parameters and from pretrained ones."""
    return starts("runs/wikitext_bert", random_rate=5e-4)


def claims():
    random, pretrained = sweep_start()
    bare = {"data.remove": ("headers", "footers", "quotes")}
    own = {"size": "cpu", "metric": "accuracy", "needs": "runs/wikitext_bert, a run of wikitext_bert.py:cpu"}
    published = {"published": 0.702, "paper": "unchecked", "row": "by date, no headers, footers, quotes"}
    return [
        {**own, "variant": "random", "overrides": random},
        {**own, "variant": "pretrained", "overrides": pretrained},
        {**own, "variant": "random+bare", "overrides": random | bare},
        {**own, "variant": "pretrained+bare", "overrides": pretrained | bare},
        {**own, "size": "base", "variant": "bare", "overrides": bare, "gpu": True, "needs": "hf:bert-base-uncased",
         **published},
    ]  # fmt: skip
