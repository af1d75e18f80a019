"""BERT in Hugging Face's layout: research.models.encoder.Encoder's fields and parameters by the names there."""

from functools import partial

import jax
import numpy as np

from research.errors import UserError
from research.models.encoder import EPSILON, HEADS, POOLED, Encoder
from research.pretrained import layout
from research.pretrained.layout import Weight

PREFIX = "bert."  # before the names of all but the heads, where there is a head; not in every folder
TRUNK = {
    "embedding": "embeddings.word_embeddings.weight",
    "position_embedding": "embeddings.position_embeddings.weight",
    "type_embedding": "embeddings.token_type_embeddings.weight",
    "embedding_norm_scale": "embeddings.LayerNorm.weight",
    "embedding_norm_bias": "embeddings.LayerNorm.bias",
}
QKV = ("attention.self.query", "attention.self.key", "attention.self.value")
BLOCK = {  # kernels are [out, in] there
    "qkv_kernel": tuple(f"{name}.weight" for name in QKV),
    "qkv_bias": tuple(f"{name}.bias" for name in QKV),
    "attention_out_kernel": ("attention.output.dense.weight",),
    "attention_out_bias": ("attention.output.dense.bias",),
    "attention_norm_scale": ("attention.output.LayerNorm.weight",),
    "attention_norm_bias": ("attention.output.LayerNorm.bias",),
    "mlp_in_kernel": ("intermediate.dense.weight",),
    "mlp_in_bias": ("intermediate.dense.bias",),
    "mlp_out_kernel": ("output.dense.weight",),
    "mlp_out_bias": ("output.dense.bias",),
    "mlp_norm_scale": ("output.LayerNorm.weight",),
    "mlp_norm_bias": ("output.LayerNorm.bias",),
}
POOLER = {"pooler_kernel": "pooler.dense.weight", "pooler_bias": "pooler.dense.bias"}
MASKED = {
    "transform_kernel": "cls.predictions.transform.dense.weight",
    "transform_bias": "cls.predictions.transform.dense.bias",
    "transform_norm_scale": "cls.predictions.transform.LayerNorm.weight",
    "transform_norm_bias": "cls.predictions.transform.LayerNorm.bias",
    "masked_bias": "cls.predictions.bias",
}
NEXT = {"next_kernel": "cls.seq_relationship.weight", "next_bias": "cls.seq_relationship.bias"}
CLASSIFIER = {"head_kernel": "classifier.weight", "head_bias": "classifier.bias"}
SPAN = {"head_kernel": "qa_outputs.weight", "head_bias": "qa_outputs.bias"}
KINDS = {  # Encoder's head: (the class there, the names of its own parameters)
    "masked": ("BertForMaskedLM", MASKED),
    "next": ("BertForNextSentencePrediction", NEXT),
    "pretraining": ("BertForPreTraining", MASKED | NEXT),
    "label": ("BertForSequenceClassification", CLASSIFIER),
    "tags": ("BertForTokenClassification", CLASSIFIER),
    "span": ("BertForQuestionAnswering", SPAN),
    "pooled": ("BertModel", {}),
    "none": ("BertModel", {}),
}
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
ROLES = {"begin": "cls", "end": "sep", "pad": "pad", "unknown": "unk", "mask": "mask"}  # our names: those there
INPUTS = ("input_ids", "token_type_ids", "attention_mask")  # what its tokenizer gives
OLD = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # of files out of TensorFlow's
FIXED = {  # what Encoder does, and no field of it changes
    "layer_norm_eps": EPSILON,
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


def model_of(config, names, path):
    """The Encoder that a config.json describes, by the names of the weights where it leaves something open: whether
    there is a pooler, and of a BertForMaskedLM, as which the first models are described, the rest of its pretraining.
    Its one rate of dropout is hidden_dropout_prob.

    Raises:
        UserError: 3, naming the field.
    """
    layout.check_fixed(config, FIXED, path)
    has = lambda own: any(name in names for name in own.values())
    pooled = any(name.removeprefix(PREFIX) in POOLER.values() for name in names)
    heads = {kind: head for head, (kind, _) in KINDS.items()}
    pretraining = {(True, True): "pretraining", (True, False): "masked", (False, True): "next"}
    default = pretraining.get((has(MASKED), has(NEXT)), "none")
    if has(SPAN) or has(CLASSIFIER):  # of a text by its pooler, or of each token
        default = "span" if has(SPAN) else "label" if pooled else "tags"
    head = heads[layout.architecture(config, KINDS[default][0], heads, path)]
    if head == "masked" and pooled and has(NEXT):
        head = "pretraining"
    if head == "none" and pooled:
        head = "pooled"
    width, heads = layout.divided(config, "hidden_size", "num_attention_heads", path)
    return Encoder(
        layers=layout.whole(config, "num_hidden_layers", path),
        heads=heads,
        width=width,
        hidden=layout.whole(config, "intermediate_size", path),
        context=layout.whole(config, "max_position_embeddings", path),
        types=layout.whole(config, "type_vocab_size", path),
        activation=layout.choice(config, "hidden_act", "gelu", ACTIVATIONS, path),
        dropout=layout.rate(config, "hidden_dropout_prob", 0.1, path),
        vocabulary=layout.whole(config, "vocab_size", path),
        head=head,
        classes=layout.classes_of(config, path) if head in ("label", "tags") else None,
    )


def _places(model, prefix):
    """{a variable's path: Weight}."""
    weight = lambda ours, *theirs: Weight(theirs, ours.endswith("kernel"))
    places = {("params", ours): weight(ours, prefix + theirs) for ours, theirs in TRUNK.items()}
    for i in range(model.layers):
        for ours, theirs in BLOCK.items():
            full = (f"{prefix}encoder.layer.{i}.{name}" for name in theirs)
            places["params", f"block{i}", ours] = weight(ours, *full)
    if any(name in POOLED for name in HEADS[model.head]):
        places |= {("params", ours): weight(ours, prefix + theirs) for ours, theirs in POOLER.items()}
    return places | {("params", ours): weight(ours, theirs) for ours, theirs in KINDS[model.head][1].items()}


def variables_of(model, config, weights, path):
    """{"params": the Encoder's} out of weights. A pooler that the head does not read is left out.

    Args:
        config: config.json.
        weights: {name: array}, the names with PREFIX or without.
        path: of the file that an error names.

    Raises:
        UserError: 3, for a weight that is missing, has no place, or is not what the model wants.
    """
    layout.check_layers(model.layers, sum(map(len, BLOCK.values())), weights, path)
    named = {}
    for name, x in weights.items():
        for old, new in OLD.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        if name in named:
            raise UserError(3, f"{path}: {name} is there by its old name, too")
        named[name] = x
    prefix = PREFIX if any(name.startswith(PREFIX) for name in named) else ""
    places = _places(model, prefix)
    spare = {f"{prefix}embeddings.position_ids"}
    if ("params", "pooler_kernel") not in places:
        spare |= {prefix + name for name in POOLER.values()}
    tied = {}
    if "masked" in HEADS[model.head]:
        table, bias = prefix + TRUNK["embedding"], MASKED["masked_bias"]
        tied = {"cls.predictions.decoder.weight": table, "cls.predictions.decoder.bias": bias}
    return layout.read(places, layout.shapes_of(model), named, path, tied, spare)


def config_of(model, variables):
    """config.json of an Encoder.

    Raises:
        UserError: 2, for one that is no BERT, naming the field.
    """
    kinds = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    known = {"positions": ["learned"], "norm": ["layer"], "norm_first": [False], "activation": list(kinds)}
    known["head"] = list(KINDS)
    layout.check_fields(model, "BERT", known)
    config = {
        "architectures": [KINDS[model.head][0]],
        "model_type": "bert",
        "dtype": "float32",
        "vocab_size": model.vocabulary + model.unused_rows,
        "max_position_embeddings": model.context,
        "type_vocab_size": model.types,
        "hidden_size": model.width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "intermediate_size": 4 * model.width if model.hidden is None else model.hidden,
        "hidden_act": kinds[model.activation],
        **FIXED,
        **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), model.dropout),
        "pad_token_id": None,  # known by the tokenizer, where there is one
    }
    if model.head in ("label", "tags"):
        config |= layout.named_labels(layout.default_labels(model.classes))
    return config


def weights_of(model, variables):
    """{name there: float32 array}, with PREFIX where transformers writes it: beside a head."""
    prefix = "" if model.head in ("none", "pooled") else PREFIX
    return layout.written(_places(model, prefix), variables)


def logits_of(model, variables, inputs):
    """See research.pretrained.logits."""
    sizes = {"input_ids": model.vocabulary, "token_type_ids": model.types, "position_ids": model.context}
    inputs = layout.checked(inputs, "BERT", sizes, lambda mask: np.arange(mask.shape[1])[None])
    names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    apply = layout.applied(_apply, model, inputs["input_ids"])
    found = apply(model, {"params": variables["params"]}, *(inputs.get(name) for name in names))
    return {"start": found[..., 0], "end": found[..., 1]} if model.head == "span" else found


@partial(jax.jit, static_argnames="model")
def _apply(model, variables, ids, mask, types, positions):
    return model.apply(variables, ids, mask, types, positions)
