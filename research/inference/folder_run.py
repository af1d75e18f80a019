"""A folder in Hugging Face's layout as a Run, so that scripts use it as they use a run folder."""

import dataclasses

import numpy as np

from research import config as configs
from research import pretrained, runs
from research.data import hub, open_dataset, tokenize
from research.data.dataset import Dataset
from research.errors import UserError
from research.models import MODELS
from research.pretrained.folder import read_json
from research.pretrained.layout import default_labels
from research.tasks import TASKS

TASK_OF = {  # by the head of the model: the task, and a data set that has its fields
    "label": ("classify_text", "glue/sst2"),
    "tags": ("tag_tokens", "wnut_17"),
    "span": ("answer_span", "squad/v1.1"),
    "masked": ("masked_lm", "wikitext2_sentences"),
    "pretraining": ("masked_lm", "wikitext2_sentences"),
    "tokens": ("next_token", "text"),
    "none": ("embed_text", "wikitext2_sentences"),
    "pooled": ("embed_text", "wikitext2_sentences"),
}
SPLITS = ("train", "validation", "test")
LONGEST = 512  # tokens of a text for a model whose positions have no table
POOLING = "1_Pooling/config.json"  # as the sentence-transformers library writes it


def load(workdir, given, *, needs_data=False, paired=False):
    """Reads a folder in Hugging Face's layout as a Run; its head determines the task.

    Args:
        workdir: hf:FOLDER_OR_NAME.
        given: {path: value} of the section data, such as {"data.name": "glue/sst2"}, if a data set is to be read.
        needs_data: whether one is.
        paired: whether a classifier reads pairs of texts.

    Raises:
        UserError: 2 if the folder does not determine a task, if a data set is needed and not given, or if it has other
            classes; 3 if the folder cannot be read.
    """
    for path in given:
        if not path.startswith("data."):
            raise UserError(2, f"--config.{path}: --workdir={workdir} takes config.data.* alone; its model is fixed")
    if needs_data and "data.name" not in given:
        raise UserError(2, f"--config.data.name: needed, as --config.data.name=glue/sst2: {workdir} names no data set")
    folder = hub.find(workdir, "--workdir")
    model, variables = pretrained.load(folder)
    if tokenize.file_of(folder) is None:
        raise UserError(3, f"{folder}: no tokenizer: neither tokenizer.json nor vocab.txt nor vocab.json")
    if model.head not in TASK_OF:
        raise UserError(2, f"{workdir}: no task uses its head {model.head}; known are {', '.join(TASK_OF)}")
    kind = read_json(folder / "config.json").get("problem_type")
    if model.head == "label" and (model.classes < 2 or kind not in (None, "single_label_classification")):
        raise UserError(2, f"{workdir}: problem_type {kind} of {model.classes} labels: only classes that exclude each "
                           "other are known here")  # fmt: skip
    task, data = TASK_OF[model.head]
    longest = model.context if model.positions == "learned" else LONGEST
    if task == "embed_text":
        longest = min(longest, _pooled_length(folder, longest))
        model = model.clone(head="none")
    config = _config(workdir, model, task, {"data.name": data, **given}, longest)
    tokenizer = tokenize.read(folder)
    labels = pretrained.labels(folder) or default_labels(model.classes or 0)
    spec = _spec(config, tokenizer, longest, model.classes, labels, paired)
    if needs_data:
        spec = open_dataset(config.data.name, configs.arguments("data", config), tokenizer)
        _check_classes(workdir, spec, model.classes, pretrained.labels(folder))
    task = TASKS[task](spec, **configs.arguments("task", config))
    return runs.Run(workdir, config, None, model, {"params": variables["params"]}, task, spec, tokenizer, None)


def _config(workdir, model, task, data, longest):
    """Returns the complete config of a run that would have this model."""
    name = next(name for name, kind in MODELS.items() if type(model) is kind)
    fields = {field.name for field in dataclasses.fields(model)} - {"name", "parent"}
    values = {"model.name": name, "task.name": task, "train.steps": 1} | {f"data.splits.{x}": x for x in SPLITS}
    values |= {f"model.{field}": getattr(model, field) for field in fields}
    config = configs.override(configs.base(), values | data)
    own = {"data.tokenizer": workdir, "data.max_len": min(longest, config.data.get("max_len", longest))}
    return configs.override(
        config, {path: x for path, x in own.items() if path[5:] in config.data and path not in data}
    )


def _spec(config, tokenizer, longest, classes, labels, paired):
    """Returns the description of data that a task of texts needs, without data."""
    row, pair = ((longest,), np.int32), ("types", "other_tokens", "other_types")
    fields = {
        "classify_text": ("tokens", *(("types",) if paired else ())),
        "tag_tokens": ("tokens", "tags"),
        "answer_span": ("tokens", "types", "answers"),
        "next_token": ("tokens", "targets"),
    }.get(config.task.name, ("tokens", *pair))
    own = {"tokenizer": tokenizer, "sequences": ("tokens",)}
    return Dataset(config.data.name, dict.fromkeys(fields, row), {}, None, classes, labels, **own)


def _pooled_length(folder, longest):
    """Returns the maximum number of tokens that a sentence encoder reads.

    Raises:
        UserError: 2 for one without a pooling file, or 3 for one that pools otherwise than by the mean.
    """
    path = folder / POOLING
    if not path.is_file():
        raise UserError(2, f"{folder}: no head, and no {POOLING}, which states how to pool a text's states")
    pooling = read_json(path)
    modes = [name for name, on in pooling.items() if name.startswith("pooling_mode_") and on]
    if modes != ["pooling_mode_mean_tokens"]:
        raise UserError(3, f"{path}: {', '.join(modes) or 'no mode'}; only pooling_mode_mean_tokens is known here")
    path = folder / "sentence_bert_config.json"
    length = read_json(path).get("max_seq_length") if path.is_file() else None
    return length if type(length) is int and length > 0 else longest


def _check_classes(workdir, dataset, classes, labels):
    """Checks that a data set has the classes of a head, in its order.

    Raises:
        UserError: 2.
    """
    if classes != dataset.classes:
        here, there = dataset.classes or "no", classes or "none"
        raise UserError(2, f"config.data.name: {dataset.name} has {here} classes; {workdir} predicts {there}")
    theirs, ours = ([name.lower() for name in names] for names in (labels, dataset.labels))
    if theirs != ours and sorted(theirs) == sorted(ours):
        raise UserError(2, f"{workdir}: predicts {', '.join(labels)} in this order; {dataset.name} has "
                           f"{', '.join(dataset.labels)}")  # fmt: skip
