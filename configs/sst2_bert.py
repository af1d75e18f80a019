"""Sentiment of film reviews by a BERT: SST-2 of GLUE. Devlin et al. 2019 (arXiv:1810.04805), section 4.1.

`base` goes on from Hugging Face's BERT-base, out of a folder or their hub, and wants a GPU. `cpu` begins with
parameters drawn at random, or with those of a run of wikitext_bert:cpu, whose form it has.

python -m experiments.train --config=configs/sst2_bert.py:cpu --config.optimizer.learning_rate=1e-3 \
    --workdir=runs/sst2_bert
python -m experiments.train --config=configs/sst2_bert.py:cpu --config.init_from=runs/wikitext_bert \
    --config.data.tokenizer=runs/wikitext_bert/tokenizer.json
python -m experiments.train --config=configs/sst2_bert.py:cpu --config.data.name=glue/rte --config.data.tokenizer=bert \
    --config.data.max_len=128 --config.train.epochs=3
python -m experiments.train --config=configs/sst2_bert.py

GLUE keeps the labels of the test split to itself, so that its validation split is the test here, and validation is
carved from train. Published of BERT-base on the same split: 92.3 % (Hugging Face's example of text classification).
`pretrained` is the second command, `random` the first with the tokenizer of the second; `cpu` reads train once. Each
has the learning rate that was best for it on validation, one seed each: from pretrained parameters 83, 85 and 86 % at
5e-4, 1e-3 and 2e-3, from random ones 84, 85, 86 and 84 % at 2.5e-4, 5e-4, 1e-3 and 2e-3. The third command reads pairs
of texts, RTE's: whether the second follows from the first.

size   hardware                 time   test accuracy, %: mean ± std (seeds)
cpu    2 cores (AMD EPYC)       2:30   79.0 ± 1.2 (3)  random
cpu    2 cores (AMD EPYC)       2:23   79.9 ± 0.4 (3)  pretrained
"""

from research.config import base, sized
from research.studies.sweep import starts


def get_config(size="base"):
    config = base()
    config.init_from = config.data.tokenizer = "hf:bert-base-uncased"  # or hf:FOLDER
    config.data.name = "glue/sst2"
    config.data.max_len = 128
    config.data.buckets = (16, 32, 64)
    config.data.splits.train = "train[:97%]"
    config.data.splits.validation = "train[97%:]"
    config.data.splits.test = "validation"
    config.data.batch_size = 32
    config.data.eval_batch_size = 64
    config.model = {"name": "encoder", "head": "label", "dropout": 0.1}
    config.task.name = "classify_text"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-5  # section A.3, as the batch and the epochs
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
        "model.layers": 4,
        "model.heads": 4,
        "model.width": 128,
        "model.context": 128,
        "model.positions": "rotary",
        "model.norm_first": True,
        "optimizer.decayed": ("kernel",),
        "optimizer.learning_rate": 2e-3,
        "train.epochs": 1.0,
        "train.steps_per_call": 10,
    }
    tiny = {
        "init_from": None,
        "data.tokenizer": "bert",
        "data.vocabulary_size": 70,
        "data.buckets": (),
        "data.max_len": 32,
        "data.batch_size": 16,
        "data.splits.train": "train[:64]",
        "data.splits.validation": "train[64:96]",
        "data.splits.test": "validation[:32]",
        "model.layers": 1,
        "model.dropout": 0.0,
        "model.heads": 4,
        "model.width": 16,
        "model.context": 128,
        "optimizer.learning_rate": 1e-2,
        "optimizer.warmup_epochs": 0.0,
        "checkpoint.every_steps": 5,
        "log.every_steps": 4,
    }
    return sized(config, size, cpu=cpu, tiny=tiny)


def sweep_start():
    """What pretraining brings: the same fine-tuning, from random parameters and from pretrained ones."""
    return starts("runs/wikitext_bert", random_rate=1e-3)


def claims():
    random, pretrained = sweep_start()
    own = {"size": "cpu", "metric": "accuracy", "needs": "runs/wikitext_bert, a run of wikitext_bert.py:cpu"}
    published = {"published": 0.923, "paper": "Hugging Face, examples/text-classification", "row": "SST-2, BERT-base"}
    return [
        {**own, "variant": "random", "overrides": random},
        {**own, "variant": "pretrained", "overrides": pretrained},
        {**own, "size": "base", "gpu": True, "needs": "hf:bert-base-uncased", **published},
    ]
