"""Two tasks on one trunk by a BERT: sentiment of SST-2 and the groups of 20 Newsgroups. Liu et al. 2019 (MT-DNN).

Section 3 of arXiv:1901.11504: what all tasks share is the encoder, each has a linear layer of its own on the pooled
[CLS]; here a batch has rows of both, and each loss is the mean over its own rows.

`base` goes on from Hugging Face's BERT-base, out of a folder or their hub, and wants a GPU. `cpu` begins with
parameters drawn at random, or with those of a run of wikitext_bert:cpu, whose form it has.

python -m experiments.train --config=configs/several_bert.py:cpu --config.optimizer.learning_rate=1e-3 \
    --workdir=runs/several_bert
python -m experiments.train --config=configs/several_bert.py:cpu --config.init_from=runs/wikitext_bert \
    --config.data.tokenizer=runs/wikitext_bert/tokenizer.json
python -m experiments.train --config=configs/several_bert.py

`pretrained` is the second command, `random` the first with the tokenizer of the second; the learning rates are those of
sst2_bert. sst2_bert and newsgroups_bert are what one task alone reaches.
"""

from research.config import base, sized
from research.studies.sweep import starts


def get_config(size="base"):
    config = base()
    config.init_from = config.data.tokenizer = "hf:bert-base-uncased"  # or hf:FOLDER
    config.data.name = "mixture"
    config.data.parts = ("glue/sst2", "newsgroups20")
    config.data.rates = (0.7, 0.3)
    config.data.train = ("train[:97%]", "train[:90%]")
    config.data.validation = ("train[97%:]", "train[90%:]")
    config.data.test = ("validation", "test")  # GLUE keeps the labels of its test to itself
    config.data.max_len = 256
    config.data.buckets = (16, 32, 64, 128)
    config.data.batch_size = 32
    config.data.eval_batch_size = 64
    config.data.splits.test = "test"
    config.model = {"name": "encoder", "head": "several", "dropout": 0.1}
    config.task.name = "several"
    config.optimizer = {"name": "adamw", "learning_rate": 5e-5, "weight_decay": 0.01}
    config.optimizer.decayed = ("kernel", "embedding")  # all but norms and biases, as in BERT's code
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_epochs = 0.3
    config.train.epochs = 3.0
    config.eval = {"every_epochs": 1.0, "metric": "loss"}  # over the examples of both
    config.log.every_steps = 100
    own = {"init_from": None, "data.tokenizer": "bert", "model.heads": 4, "optimizer.decayed": ("kernel",)}
    cpu = {
        **own,
        "data.vocabulary_size": 4096,
        "data.max_len": 128,
        "data.buckets": (16, 32, 64),
        "model.layers": 4,
        "model.width": 128,
        "model.context": 128,
        "model.positions": "rotary",
        "model.norm_first": True,
        "optimizer.learning_rate": 2e-3,  # sst2_bert's and newsgroups_bert's
        "train.epochs": 1.0,  # of SST-2; the messages of 20 Newsgroups are read 2.7 times
        "train.steps_per_call": 10,
    }
    tiny = {
        **own,
        "data.vocabulary_size": 70,
        "data.max_len": 32,
        "data.buckets": (),
        "data.batch_size": 16,
        "data.train": ("train[:64]", "train[:96]"),
        "data.validation": ("train[64:96]", "train[96:128]"),
        "data.test": ("validation[:32]", "test[:32]"),
        "model.layers": 1,
        "model.dropout": 0.0,
        "model.width": 16,
        "model.context": 32,
        "task.weights": ("newsgroups20=0.5",),
        "optimizer.learning_rate": 1e-2,
        "optimizer.warmup_epochs": 0.0,
        "checkpoint.every_steps": 10,
        "log.every_steps": 5,
    }
    return sized(config, size, cpu=cpu, tiny=tiny)


def sweep_start():
    """What pretraining brings: the same fine-tuning, from random parameters and from pretrained ones."""
    return starts("runs/wikitext_bert", random_rate=1e-3)  # sst2_bert's


def claims():
    random, pretrained = sweep_start()
    needs = {"needs": "runs/wikitext_bert, a run of wikitext_bert.py:cpu"}
    own = {"size": "cpu", "metric": "glue_sst2_accuracy", "also": ("newsgroups20_accuracy",)}
    return [
        {**own, "variant": "random", "overrides": random, **needs},
        {**own, "variant": "pretrained", "overrides": pretrained, **needs},
        {**own, "size": "base", "gpu": True, "needs": "hf:bert-base-uncased"},
    ]
