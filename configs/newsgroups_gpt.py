"""Messages to twenty newsgroups, told apart by a GPT: 20 Newsgroups by date. Lang 1995; Radford et al. 2018.

Radford et al. 2018 (GPT), section 3.2: a decoder reads the text, and a linear layer on its last token tells the class.

`base` goes on from Hugging Face's GPT-2 of 124 million parameters, out of a folder or their hub, and wants a GPU. `cpu`
begins with parameters drawn at random, or with those of a run of wikitext_gpt:cpu, whose form it has.

python -m experiments.train --config=configs/newsgroups_gpt.py:cpu --workdir=runs/newsgroups_gpt
python -m experiments.train --config=configs/newsgroups_gpt.py:cpu --config.init_from=runs/wikitext_gpt \
    --config.data.tokenizer=runs/wikitext_gpt/tokenizer.json
python -m experiments.train --config=configs/newsgroups_gpt.py

Headers, signatures and quotes give groups away: --config.data.remove=headers,footers,quotes leaves them out, `bare`
below. `pretrained` is the second command. README has a linear model beside them. No learning rate was searched for.

size   hardware                 time   test accuracy, %: mean ± std (seeds)
cpu    2 cores (AMD EPYC)       9:07   41.87 (1†)
cpu    2 cores (AMD EPYC)       6:37   32.85 (1†)  bare
cpu    2 cores (AMD EPYC)       7:05   61.82 (1†)  pretrained
cpu    2 cores (AMD EPYC)       6:33   48.78 (1†)  pretrained+bare
"""

from research.config import base, sized


def get_config(size="base"):
    config = base()
    config.init_from = config.data.tokenizer = "hf:gpt2"  # or hf:FOLDER
    config.data.name = "newsgroups20"
    config.data.max_len = 512
    config.data.batch_size = 8
    config.data.eval_batch_size = 32
    config.model = {"name": "decoder", "head": "label", "dropout": 0.1}
    config.task.name = "classify_text"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-5
    config.optimizer.weight_decay = 0.01
    config.optimizer.decayed = ("kernel", "embedding")  # all but biases and gains, section 4.1
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_epochs = 0.1
    config.train.epochs = 3.0
    config.log.every_steps = 100
    form = {"positions": "rotary", "norm": "rms", "activation": "swiglu", "bias": False, "kv_heads": 2}
    small = {"init_from": None, "data.tokenizer": "bpe"}
    small |= {f"model.{name}": value for name, value in form.items()}  # that of wikitext_gpt
    cpu = {
        **small,
        "data.vocabulary_size": 4096,
        "data.max_len": 256,
        "model.layers": 4,
        "model.heads": 4,
        "model.width": 128,
        "model.hidden": 352,
        "model.context": 256,
        "optimizer.decayed": ("kernel",),
        "optimizer.learning_rate": 1e-3,
        "train.steps_per_call": 10,
    }
    tiny = {
        **small,
        "data.vocabulary_size": 300,
        "data.max_len": 32,
        "data.buckets": (16,),
        "data.remove": ("headers", "footers", "quotes"),
        "data.splits.train": "train[:64]",
        "data.splits.validation": "train[64:96]",
        "data.splits.test": "test[:32]",
        "model.layers": 1,
        "model.dropout": 0.0,
        "model.heads": 4,
        "model.width": 16,
        "model.hidden": 32,
        "model.context": 32,
        "optimizer.learning_rate": 1e-2,
        "checkpoint.every_steps": 10,
        "log.every_steps": 5,
    }
    return sized(config, size, cpu=cpu, tiny=tiny)


def claims():
    """Nothing is published of a GPT on these messages: README has a linear model beside it."""
    pretrained = {"init_from": "runs/wikitext_gpt", "data.tokenizer": "runs/wikitext_gpt/tokenizer.json"}
    bare, needs = {"data.remove": ("headers", "footers", "quotes")}, "runs/wikitext_gpt, a run of wikitext_gpt.py:cpu"
    own = {"size": "cpu", "metric": "accuracy"}
    return [
        own,
        {**own, "variant": "bare", "overrides": bare},
        {**own, "variant": "pretrained", "overrides": pretrained, "needs": needs},
        {**own, "variant": "pretrained+bare", "overrides": pretrained | bare, "needs": needs},
        {**own, "size": "base", "gpu": True, "needs": "hf:gpt2"},
    ]
