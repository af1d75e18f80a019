"""A word LSTM with tied embeddings on WikiText-2. Merity et al. 2016 (arXiv:1609.07843); tied: Inan et al. 2016.

python -m experiments.train --config=configs/wikitext2_lstm.py --workdir=runs/wikitext2_lstm
python -m experiments.train --config=configs/wikitext2_lstm.py:cpu

All 33,278 words of the official vocabulary, <unk> and <eos> among them, so that perplexities compare with published
ones: 92.3 / 87.7 (validation / test) for Inan et al.'s tied variational LSTM of width 650, which is the size base;
100.9 on test for Merity et al.'s zoneout LSTM. Of the size cpu none is published. Theirs carry the state through the
whole text. Here a window of evaluation reads 64 words before those that it scores; training windows begin with a state
of zeros.

size   hardware                 time   test perplexity / test bits per byte: mean ± std (seeds)
cpu    2 cores (AMD EPYC)      10:23   293.1 / 1.602 (1†)
"""

from research.config import base, sized


def get_config(size="base"):
    config = base()
    config.data.name = "wikitext2"
    config.data.tokenizer = "blanks"
    config.data.vocabulary_size = 40000  # more than there are: all are kept
    config.data.newline = " <eos> "
    config.data.max_len = 128
    config.data.context = 64
    config.data.batch_size = 32
    config.data.eval_batch_size = 16
    config.model = {
        "name": "recurrent_lm",
        "cell": "lstm",
        "layers": 2,
        "width": 650,
        "embedding": 650,
        "tied": True,
        "dropout": 0.6,
    }
    config.task.name = "next_token"
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 0.2
    config.optimizer.clip_norm = 0.5
    config.train.epochs = 40.0
    config.eval.every_epochs = 2.0
    config.eval.metric = "loss"
    config.log.every_steps = 25
    cpu = {
        "data.batch_size": 16,
        "model.layers": 1,
        "model.width": 192,
        "model.embedding": 192,
        "model.dropout": 0.3,
        "optimizer.learning_rate": 4e-3,
        "train.epochs": 1.25,
        "eval.every_epochs": 1.25,
    }
    tiny = {
        "data.max_len": 32,
        "data.context": 8,
        "data.batch_size": 8,
        "data.splits.train": "train[:24]",
        "data.splits.validation": "validation[:8]",
        "data.splits.test": "test[:8]",
        "model.layers": 1,
        "model.width": 16,
        "model.embedding": 16,
        "model.dropout": 0.1,
        "optimizer.learning_rate": 1e-2,
        "train.epochs": 4,
        "eval.every_epochs": 2,
        "checkpoint.every_steps": 5,
        "log.every_steps": 3,
    }
    return sized(config, size, cpu=cpu, tiny=tiny)


def sweep_cell():
    return [{"model.cell": cell} for cell in ("rnn", "gru", "lstm")]


def claims():
    own = {"metric": "perplexity", "also": ("bits_per_byte",)}
    published = {"published": 87.7, "met": "at_most", "paper": "Inan et al. 2016", "row": "variational LSTM, tied, 650"}
    return [{"size": "base", "gpu": True, **published, **own}, {"size": "cpu", **own}]  # of cpu none is published
