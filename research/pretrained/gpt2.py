"""GPT-2 in Hugging Face's layout: research.models.decoder.Decoder's fields and parameters by the names there."""

import re
from functools import partial

import jax
import numpy as np

from research.models.decoder import Decoder
from research.pretrained import layout
from research.pretrained.layout import Weight

PREFIX = "transformer."  # before the names of all but the heads, where there is a head; not in every folder
TRUNK = {
    "embedding": "wte.weight",
    "position_embedding": "wpe.weight",
    "norm_scale": "ln_f.weight",
    "norm_bias": "ln_f.bias",
}
BLOCK = {  # kernels are [in, out] there too
    "attention_norm_scale": "ln_1.weight",
    "attention_norm_bias": "ln_1.bias",
    "qkv_kernel": "attn.c_attn.weight",
    "qkv_bias": "attn.c_attn.bias",
    "attention_out_kernel": "attn.c_proj.weight",
    "attention_out_bias": "attn.c_proj.bias",
    "mlp_norm_scale": "ln_2.weight",
    "mlp_norm_bias": "ln_2.bias",
    "mlp_in_kernel": "mlp.c_fc.weight",
    "mlp_in_bias": "mlp.c_fc.bias",
    "mlp_out_kernel": "mlp.c_proj.weight",
    "mlp_out_bias": "mlp.c_proj.bias",
}
HEADS = {  # Decoder's head: (the class there, its weight, which is [out, in], its bias)
    "tokens": ("GPT2LMHeadModel", "lm_head.weight", None),
    "label": ("GPT2ForSequenceClassification", "score.weight", None),
    "tags": ("GPT2ForTokenClassification", "classifier.weight", "classifier.bias"),
    "span": ("GPT2ForQuestionAnswering", "qa_outputs.weight", "qa_outputs.bias"),
    "none": ("GPT2Model", None, None),
}
TWO_HEADS = "GPT2DoubleHeadsModel"  # that of tokens, and one that says how fit a text is by its last token:
CHOICE = {"kernel": "multiple_choice_head.summary.weight", "bias": "multiple_choice_head.summary.bias"}
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
ROLES = {"begin": "bos", "end": "eos", "pad": "pad", "unknown": "unk"}  # our names of special tokens: those there
INPUTS = ("input_ids", "attention_mask")  # what its tokenizer gives
BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, in old files
FIXED = {  # what Decoder does, and no field of it changes
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def model_of(config, names, path):
    """The Decoder that a config.json describes. Its one rate of dropout is that of the residual.

    Args:
        names: of the weights.

    Raises:
        UserError: 3, naming the field.
    """
    layout.check_fixed(config, FIXED, path)
    kinds = {**{kind: head for head, (kind, *_) in HEADS.items()}, TWO_HEADS: "tokens"}
    head = kinds[_architecture(config, names, path)]
    width, heads = layout.divided(config, "n_embd", "n_head", path)
    return Decoder(
        layers=layout.whole(config, "n_layer", path),
        heads=heads,
        width=width,
        hidden=None if config.get("n_inner") is None else layout.whole(config, "n_inner", path),
        context=layout.whole(config, "n_positions", path),
        activation=layout.choice(config, "activation_function", "gelu_new", ACTIVATIONS, path),
        tied=bool(config.get("tie_word_embeddings", True)),
        dropout=layout.rate(config, "resid_pdrop", 0.1, path),
        vocabulary=layout.whole(config, "vocab_size", path),
        head=head,
        classes=layout.classes_of(config, path) if head in ("label", "tags") else None,
    )


def _architecture(config, names, path):
    """Returns the class of a folder: the one that its config.json names, else the one that its weights are of."""
    own = {TWO_HEADS: CHOICE["kernel"], **{kind: weight for kind, weight, _ in HEADS.values()}}
    default = next((kind for kind, weight in own.items() if weight in names), HEADS["tokens"][0])
    return layout.architecture(config, default, list(own), path)


def _places(model, two_heads, prefix):
    """{a variable's path: Weight}; those of a second head are a collection, "choice"."""
    places = {("params", ours): Weight((prefix + theirs,)) for ours, theirs in TRUNK.items()}
    for i in range(model.layers):
        for ours, theirs in BLOCK.items():
            places["params", f"block{i}", ours] = Weight((f"{prefix}h.{i}.{theirs}",))
    _, weight, bias = HEADS[model.head]
    if weight is not None and not (model.head == "tokens" and model.tied):
        places["params", "head_kernel"] = Weight((weight,), True)
    if bias is not None:
        places["params", "head_bias"] = Weight((bias,))
    choice = {("choice", ours): Weight((theirs,), ours == "kernel") for ours, theirs in CHOICE.items()}
    return places | (choice if two_heads else {})


def variables_of(model, config, weights, path):
    """{"params": the Decoder's, "choice": those of a second head, where there is one} out of weights.

    Args:
        config: config.json.
        weights: {name: array}, the names with PREFIX or without.
        path: of the file that an error names.

    Raises:
        UserError: 3, for a weight that is missing, has no place, or is not what the model wants.
    """
    layout.check_layers(model.layers, len(BLOCK), weights, path)
    prefix = PREFIX if any(name.startswith(PREFIX) for name in weights) else ""
    places = _places(model, _architecture(config, weights, path) == TWO_HEADS, prefix)
    shapes = layout.shapes_of(model) | {("choice", "kernel"): (model.width, 1), ("choice", "bias"): (1,)}
    tied = {"lm_head.weight": f"{prefix}wte.weight"} if model.head == "tokens" and model.tied else {}
    spare = [name for name in weights if BUFFERS.fullmatch(name.removeprefix(prefix))]
    return layout.read(places, shapes, weights, path, tied, spare)


def config_of(model, variables):
    """Returns the config.json of a Decoder with these variables.

    Raises:
        UserError: 2, for one that is no GPT-2, naming the field.
    """
    kinds = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    known = {"positions": ["learned"], "norm": ["layer"], "bias": [True], "kv_heads": [None, model.heads]}
    layout.check_fields(model, "GPT-2", known | {"activation": list(kinds)})
    config = {
        "architectures": [TWO_HEADS if "choice" in variables else HEADS[model.head][0]],
        "model_type": "gpt2",
        "dtype": "float32",
        "vocab_size": model.vocabulary + model.unused_rows,
        "n_positions": model.context,
        "n_embd": model.width,
        "n_layer": model.layers,
        "n_head": model.heads,
        "n_inner": model.hidden,
        "activation_function": kinds[model.activation],
        "tie_word_embeddings": model.tied,
        **FIXED,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), model.dropout),
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),  # known by the tokenizer, where there is one
    }
    if model.head in ("label", "tags"):
        config |= layout.named_labels(layout.default_labels(model.classes))
    return config


def weights_of(model, variables):
    """{name there: float32 array}, with PREFIX where transformers writes it: beside a head."""
    prefix = "" if model.head == "none" else PREFIX
    return layout.written(_places(model, "choice" in variables, prefix), variables)


def logits_of(model, variables, inputs):
    """See research.pretrained.logits."""
    sizes = {"input_ids": model.vocabulary, "position_ids": model.context}
    inputs = layout.checked(inputs, "GPT-2", sizes, lambda mask: np.maximum(mask.cumsum(1) - 1, 0))
    given = [inputs[name] for name in ("input_ids", "attention_mask", "position_ids")]
    apply = layout.applied(_apply, model, given[0])
    x = apply(model, {"params": variables["params"]}, *given)
    if "choice" in variables:
        params = {**variables["params"], "head_kernel": variables["choice"]["kernel"]}  # a label of one class
        fit = apply(model.clone(head="label", classes=1), {"params": params}, *given)
        return {"tokens": x, "choice": fit[:, 0] + variables["choice"]["bias"]}
    return {"start": x[..., 0], "end": x[..., 1]} if model.head == "span" else x


@partial(jax.jit, static_argnames="model")
def _apply(model, variables, ids, mask, positions):
    # Tokens see no padding, wherever it stands, as if it were another document.
    return model.apply(variables, ids, mask, positions, segments=mask)
