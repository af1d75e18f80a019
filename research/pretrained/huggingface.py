"""Folders in Hugging Face's layout: models of ours out of them, and written so that transformers loads them."""

from research.data import hub, tokenize
from research.errors import UserError
from research.models.decoder import Decoder
from research.models.encoder import Encoder
from research.pretrained import bert, gpt2
from research.pretrained import layout as layouts
from research.pretrained.folder import read_json, read_weights, write

LAYOUTS = {"bert": bert, "gpt2": gpt2}  # config.json's model_type: what it is here
MODELS = {Decoder: gpt2, Encoder: bert}
PADDED_TO = 8  # a multiple of which a padded vocabulary is


def load(folder):
    """Reads a model and its variables, float32, from a folder; its config.json gives the widths, heads and so on.

    The embedding may have more rows than the tokenizer has tokens, padded to a multiple of 8 (often of 64 or 128). The
    model then has `unused_rows`: they are kept and written back, but never predicted.

    Args:
        folder: its path, or hf:FOLDER_OR_NAME.

    Raises:
        UserError: 3, for what is missing, damaged, hostile or does not go together; with the file and the fault.
    """
    model, variables = _read(hub.find(str(folder), "pretrained.load"), True)
    return model, variables


def read_model(folder):
    """Reads the model of a folder; of the weights only their names and shapes. Args, errors: as for `load`."""
    return _read(hub.find(str(folder), "pretrained.read_model"), False)[0]


def _read(folder, with_variables):
    path = folder / "config.json"
    config = read_json(path)
    kind = config.get("model_type")
    if kind not in list(LAYOUTS):  # it may be anything, also what cannot be hashed
        raise UserError(3, f"{path}: model_type: {kind!r}; known are {', '.join(LAYOUTS)}")
    weights, source = read_weights(folder)
    model = LAYOUTS[kind].model_of(config, weights, path)
    variables = LAYOUTS[kind].variables_of(model, config, weights, source) if with_variables else None
    file = tokenize.file_of(folder)
    if file is not None and (size := tokenize.read(file).size) != (rows := model.vocabulary):
        if size > rows or rows % PADDED_TO:
            raise UserError(3, f"{file}: {size} tokens; the embedding in {source} has {rows}")
        model = model.clone(vocabulary=size, unused_rows=rows - size)
    return model, variables


def logits(model, variables, inputs):
    """What a model's head says of token ids.

    Args:
        inputs: {"input_ids": int[B, T]}, and where they are given attention_mask [B, T], 0 for padding, which no token
            sees; position_ids [B, T], else each token's place in the row, of GPT-2 its number among the unmasked ones;
            of BERT token_type_ids, else 0. A label is told by GPT-2's last token that is no padding, BERT's first.

    Returns:
        float32: [B, T, V] of tokens, [B, classes] of a label, [B, T, classes] of tags, [B, 2] of the next sentence; the
        last hidden state [B, T, D] where there is no head; {"start", "end"}: [B, T] of a span. What tells two things
        gives both by name: {"tokens", "choice"} of GPT-2's double head, [B, T, V] and [B], how fit each text is;
        {"masked", "next"} of BERT's pretraining; {"states", "pooled"} of a BERT with its pooler, [B, T, D] and [B, D].

    Raises:
        UserError: 3, for an id or a position that is out of range, or an input that the model has not.
    """
    return _layout(model).logits_of(model, variables, inputs)


def labels(folder):
    """The names of the labels of a folder, in their order; () where they have none.

    Args, errors: as for `load`.
    """
    folder = hub.find(str(folder), "pretrained.labels")
    return layouts.labels_of(read_json(folder / "config.json"))


def save(folder, model, variables, tokenizer=None, labels=()):
    """Writes a new folder from which `load`, and transformers, read the same model: config.json, model.safetensors in
    float32, and the tokenizer's files, if it is given. That does not add the end by which a tokenizer of ours closes a
    text that is read whole, for its label.

    Args:
        labels: the names of the model's classes, as a run's spec.labels.

    Raises:
        UserError: 2 for a model that has no such layout, a tokenizer of another vocabulary, other than a name a class,
            or a folder that holds something, 5 if it cannot be written.
    """
    layout = _layout(model)
    files = {"config.json": layout.config_of(model, variables)}
    if labels:
        if len(labels) != model.classes:
            raise UserError(2, f"{folder}: {len(labels)} names of labels; the model has {model.classes} classes")
        files["config.json"] |= layouts.named_labels(labels)
    if tokenizer is not None:
        if tokenizer.size != model.vocabulary:
            raise UserError(2, f"{folder}: a tokenizer of {tokenizer.size} tokens; the model has {model.vocabulary}")
        special = {**tokenizer.special, "pad": tokenizer.end if tokenizer.pad < 0 else tokenizer.pad}  # by custom
        roles = {theirs: special[ours] for ours, theirs in layout.ROLES.items() if special[ours] >= 0}
        named = {f"{role}_token": tokenizer.vocabulary[i] for role, i in roles.items()}
        files["config.json"] |= {f"{role}_token_id": roles[role] for role in ("bos", "eos", "pad") if role in roles}
        own = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": layout.INPUTS}
        files["tokenizer_config.json"] = own | named
        files["tokenizer.json"] = tokenizer.json
    write(folder, files, layout.weights_of(model, variables))


def _layout(model):
    if type(model) not in MODELS:
        known = ", ".join(kind.__name__ for kind in MODELS)
        raise UserError(2, f"{type(model).__name__}: has no layout of Hugging Face's; known are {known}")
    return MODELS[type(model)]
