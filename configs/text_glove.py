"""Word vectors on WikiText-2: GloVe, on counts of co-occurrence. Pennington et al. 2014, section 4.2.

python -m experiments.train --config=configs/text_glove.py --workdir=runs/text_glove
python -m experiments.train --config=configs/text_glove.py:cpu

size   hardware                 time   Spearman on WordSim-353, SimLex-999: mean ± std (seeds)
cpu    2 cores (Intel(R) Xeon(R) Processor)   2:10   0.1244 / 0.05997 (1†)  ours, glove
"""

from research.config import base, sized

BATCH = 8192


def get_config(size="base"):
    config = base()
    config.data.name = "wikitext2_cooccurrences"
    config.data.normalize = ("lowercase",)
    config.data.min_count = 5
    config.data.window = 10
    config.data.batch_size = BATCH
    config.data.eval_batch_size = BATCH
    config.data.splits.train = "train[:98%]"  # of cells that are not 0
    config.data.splits.validation = "train[98%:99%]"
    config.data.splits.test = "train[99%:]"
    config.model = {"name": "glove", "width": 100}
    config.task.name = "glove"
    config.optimizer.name = "adagrad"
    config.optimizer.learning_rate = 0.05
    # The authors' code begins at 1 with gradients of single cells; ours are means over a batch of them.
    config.optimizer.initial_accumulator_value = BATCH**-2.0
    config.optimizer.eps = 1e-15
    config.train.epochs = 50.0
    config.train.steps_per_call = 8
    config.eval.every_epochs = 10.0
    config.eval.metric = "loss"
    config.log.every_steps = 500
    cpu = {"train.epochs": 10, "eval.every_epochs": 5}
    tiny = {
        "data.window": 2,
        "data.splits.train": "train[:320]",
        "data.splits.validation": "train[320:384]",
        "data.splits.test": "train[384:448]",
        "data.min_count": 1,
        "data.batch_size": 64,
        "data.eval_batch_size": 64,
        "model.width": 8,
        "train.epochs": 4,
        "train.steps_per_call": 2,
        "eval.every_epochs": 2,
        "checkpoint.every_steps": 10,
        "log.every_steps": 5,
        "optimizer.initial_accumulator_value": 64**-2.0,
    }
    return sized(config, size, cpu=cpu, tiny=tiny)


def sweep_window():
    return [{"data.window": window} for window in (5, 10, 15)]


def claims():
    """Its loss on pairs; how good the vectors are, README has beside gensim's."""
    return [{"size": "cpu", "metric": "loss"}]
