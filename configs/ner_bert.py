"""New and rare entities named in messages, by a BERT: WNUT-17. Derczynski et al. 2017 (W17-4418).

Devlin et al. 2019 (arXiv:1810.04805), section 5.3: a linear layer on each word's first piece tells its tag. Six types;
precision, recall and F1 are of whole entities, as conlleval counts them.

`base` goes on from Hugging Face's BERT-base, out of a folder or their hub, and wants a GPU. `cpu` begins with
parameters drawn at random, or with those of a run of wikitext_bert:cpu, whose form it has.

python -m experiments.train --config=configs/ner_bert.py:cpu --workdir=runs/ner_bert
python -m experiments.train --config=configs/ner_bert.py:cpu --config.init_from=runs/wikitext_bert \
    --config.data.tokenizer=runs/wikitext_bert/tokenizer.json
python -m experiments.train --config=configs/ner_bert.py

Test holds entities that train does not. `pretrained` is the second command, `random` the same without init_from. Of
the learning rates 5e-4 and 1e-3 `cpu` has what was best on validation, one seed each: an F1 of 24 and 22 % from
pretrained parameters, and of 15.66 and 15.65 % from random ones.

size   hardware                 time   test F1, % / test precision, % / test recall, %: mean ± std (seeds)
cpu    2 cores (AMD EPYC)       2:43   10.6 ± 1.1 / 13.3 ± 2.5 / 8.9 ± 0.4 (3)  random
cpu    2 cores (AMD EPYC)       2:42   18.8 ± 0.7 / 26.1 ± 3.4 / 14.8 ± 0.6 (3)  pretrained
"""

from research.config import base, sized
from research.studies.sweep import starts


def get_config(size="base"):
    config = base()
    config.init_from = config.data.tokenizer = "hf:bert-base-uncased"  # or hf:FOLDER
    config.data.name = "wnut_17"
    config.data.max_len = 128
    config.data.buckets = (32, 64)
    config.data.batch_size = 16
    config.data.eval_batch_size = 64
    config.model = {"name": "encoder", "head": "tags", "dropout": 0.1}
    config.task.name = "tag_tokens"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-5
    config.optimizer.weight_decay = 0.01
    config.optimizer.decayed = ("kernel", "embedding")  # all but norms and biases, as in BERT's code
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_epochs = 0.3
    config.train.epochs = 4.0
    config.eval.metric = "f1"
    config.log.every_steps = 50
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
        "optimizer.learning_rate": 5e-4,
        "train.epochs": 12.0,
        "train.steps_per_call": 10,
    }
    tiny = {
        "init_from": None,
        "data.tokenizer": "bert",
        "data.vocabulary_size": 70,
        "data.buckets": (),
        "data.max_len": 16,
        "data.splits.train": "train[:64]",
        "data.splits.validation": "validation[:32]",
        "data.splits.test": "test[:32]",
        "model.layers": 1,
        "model.dropout": 0.0,
        "model.heads": 4,
        "model.width": 16,
        "model.context": 32,
        "optimizer.learning_rate": 1e-2,
        "optimizer.warmup_epochs": 0.0,
        "checkpoint.every_steps": 5,
        "log.every_steps": 4,
    }
    return sized(config, size, cpu=cpu, tiny=tiny)


def sweep_start():
    """What pretraining brings: the same fine-tuning, from random parameters and from pretrained ones."""
    return starts("runs/wikitext_bert")


def claims():
    random, pretrained = sweep_start()
    own = {"size": "cpu", "metric": "f1", "also": ("precision", "recall")}
    needs = {"needs": "runs/wikitext_bert, a run of wikitext_bert.py:cpu"}
    return [
        {**own, "variant": "random", "overrides": random, **needs},
        {**own, "variant": "pretrained", "overrides": pretrained, **needs},
        {**own, "size": "base", "gpu": True, "needs": "hf:bert-base-uncased"},
    ]
