"""GPT-2 in Hugging Face's layout: research.models.decoder.Decoder's fields and parameters by the names there."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from research.errors import UserError
from research.models.decoder import Decoder
from research.optimizers import unstacked
from research.pretrained.folder import as_float32

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
OF_HEADS = {name for _, *own in HEADS.values() for name in own if name} | set(CHOICE.values())
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, in old files
FIXED = {  # what Decoder does, and no field of it changes
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def model_of(config, path):
    """The Decoder that a config.json describes. Its one rate of dropout is that of the residual.

    Raises:
        UserError: 3, naming the field.
    """

    def whole(name):
        value = config.get(name)
        if type(value) is not int or not 0 < value < 2**31:
            found = "missing" if value is None else repr(value)
            raise UserError(3, f"{path}: {name}: {found}; a whole number of at least 1 is wanted")
        return value

    for name, value in FIXED.items():
        if config.get(name, value) != value:
            raise UserError(3, f"{path}: {name}: {config[name]!r}; only {value!r} is known here")
    named = config.get("architectures") or [HEADS["tokens"][0]]
    kinds = {**{kind: head for head, (kind, *_) in HEADS.items()}, TWO_HEADS: "tokens"}
    if named not in [[kind] for kind in kinds]:
        raise UserError(3, f"{path}: architectures: {named!r}; one of {', '.join(kinds)} is known")
    head = kinds[named[0]]
    activation = config.get("activation_function", "gelu_new")
    if activation not in list(ACTIVATIONS):
        raise UserError(3, f"{path}: activation_function: {activation!r}; known are {', '.join(ACTIVATIONS)}")
    dropout = config.get("resid_pdrop", 0.1)
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise UserError(3, f"{path}: resid_pdrop: {dropout!r}; a number from 0 to below 1 is wanted")
    width, heads = whole("n_embd"), whole("n_head")
    if width % heads:
        raise UserError(3, f"{path}: n_head: {heads} does not divide n_embd {width}")
    labels = config.get("id2label")
    classes = len(labels) if isinstance(labels, dict) and labels else 2  # transformers' default
    return Decoder(
        layers=whole("n_layer"),
        heads=heads,
        width=width,
        hidden=None if config.get("n_inner") is None else whole("n_inner"),
        context=whole("n_positions"),
        activation=ACTIVATIONS[activation],
        tied=bool(config.get("tie_word_embeddings", True)),
        dropout=float(dropout),
        vocabulary=whole("vocab_size"),
        head=head,
        classes=classes if head in ("label", "tags") else None,
    )


def names_of(model, two_heads):
    """{a variable's path: its name there, without PREFIX}; those of a second head are a collection, "choice"."""
    names = {("params", ours): theirs for ours, theirs in TRUNK.items()}
    for i in range(model.layers):
        names |= {("params", f"block{i}", ours): f"h.{i}.{theirs}" for ours, theirs in BLOCK.items()}
    _, weight, bias = HEADS[model.head]
    if weight is not None and not (model.head == "tokens" and model.tied):
        names["params", "head_kernel"] = weight
    if bias is not None:
        names["params", "head_bias"] = bias
    return names | ({("choice", ours): theirs for ours, theirs in CHOICE.items()} if two_heads else {})


def variables_of(model, config, weights, path):
    """{"params": the Decoder's, "choice": those of a second head, where there is one} out of weights.

    Args:
        config: config.json.
        weights: {name: array}, the names with PREFIX or without.
        path: of the file that an error names.

    Raises:
        UserError: 3, for a weight that is missing, has no place, or is not what the model wants.
    """
    if len(BLOCK) * model.layers > len(weights):  # before anything is as large as config.json says
        raise UserError(3, f"{path}: {len(weights)} tensors are too few for the {model.layers} layers of config.json")
    prefix = PREFIX if any(name.startswith(PREFIX) for name in weights) else ""
    full = lambda name: name if name in OF_HEADS else prefix + name
    names = names_of(model, config.get("architectures") == [TWO_HEADS])
    wanted = {place: full(name) for place, name in names.items()}
    there = {name for name in weights if not BUFFERS.fullmatch(name.removeprefix(prefix))}
    if model.head == "tokens" and model.tied and "lm_head.weight" in there:
        if not np.array_equal(weights["lm_head.weight"], weights.get(full("wte.weight"))):
            raise UserError(3, f"{path}: lm_head.weight is not wte.weight, to which config.json ties it")
        there.remove("lm_head.weight")
    more = lambda names: f" and {len(names) - 1} more" if len(names) > 1 else ""
    if missing := [name for name in wanted.values() if name not in there]:
        raise UserError(3, f"{path}: {missing[0]}{more(missing)}, which config.json asks for, is missing")
    if extra := sorted(there - set(wanted.values())):
        raise UserError(3, f"{path}: {extra[0]}{more(extra)} has no place in the model that config.json describes")
    shapes, variables = _shapes(model), {}
    for place, name in wanted.items():
        x = as_float32(path, name, weights[name], shapes[place][::-1] if _is_turned(place) else shapes[place])
        *sections, leaf = place
        at = variables
        for section in sections:
            at = at.setdefault(section, {})
        at[leaf] = jnp.asarray(x.T if _is_turned(place) else x)
    return variables


def _is_turned(place):
    """Whether a variable is transposed there: kernels of heads."""
    return place[-1] == "head_kernel" or place == ("choice", "kernel")


def _shapes(model):
    """{a variable's path: its shape}."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    found = jax.eval_shape(lambda tokens: model.init(jax.random.key(0), tokens), tokens)
    shapes = {tuple(k.key for k in path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(found)}
    return shapes | {("choice", "kernel"): (model.width, 1), ("choice", "bias"): (1,)}


def config_of(model, variables):
    """config.json of a Decoder with these variables.

    Raises:
        UserError: 2, for one that is no GPT-2, naming the field.
    """
    kinds = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    fixed = {"positions": "learned", "norm": "layer", "bias": True}
    for field, value in fixed.items():
        if getattr(model, field) != value:
            raise UserError(2, f"config.model.{field}: {getattr(model, field)!r}; GPT-2 has {value!r}")
    if model.kv_heads not in (None, model.heads):
        raise UserError(2, f"config.model.kv_heads: {model.kv_heads}; GPT-2 has as many as heads, {model.heads}")
    if model.activation not in kinds:
        raise UserError(2, f"config.model.activation: {model.activation!r}; GPT-2 has {' or '.join(kinds)}")
    config = {
        "architectures": [TWO_HEADS if "choice" in variables else HEADS[model.head][0]],
        "model_type": "gpt2",
        "dtype": "float32",
        "vocab_size": model.vocabulary,
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
        names = [f"LABEL_{i}" for i in range(model.classes)]
        config |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    return config


def weights_of(model, variables):
    """{name there: float32 array}, with PREFIX where transformers writes it: beside a head."""
    prefix, variables, weights = "" if model.head == "none" else PREFIX, unstacked(variables), {}
    for place, name in names_of(model, "choice" in variables).items():
        x = variables
        for key in place:
            x = x[key]
        x = np.asarray(x, np.float32)
        weights[name if name in OF_HEADS else prefix + name] = x.T if _is_turned(place) else x
    return weights


def logits_of(model, variables, inputs):
    """See research.pretrained.logits."""
    known = ("input_ids", "attention_mask", "position_ids")
    if "input_ids" not in inputs or not set(inputs) <= set(known):
        raise UserError(3, f"inputs {', '.join(inputs)}: GPT-2 takes input_ids, and of {', '.join(known[1:])} any")
    ids = np.asarray(inputs["input_ids"])
    mask = np.asarray(inputs.get("attention_mask", np.ones_like(ids))) != 0
    if ids.ndim != 2 or mask.shape != ids.shape:
        raise UserError(3, f"input_ids, attention_mask: shapes {ids.shape}, {mask.shape}; both are [texts, tokens]")
    positions = np.asarray(inputs.get("position_ids", np.maximum(mask.cumsum(1) - 1, 0)))
    positions = np.broadcast_to(positions, ids.shape)
    for name, x, size in (("input_ids", ids, model.vocabulary), ("position_ids", positions, model.context)):
        if wrong := sorted({int(i) for i in np.unique(x[mask]) if not 0 <= i < size}):
            raise UserError(3, f"{name}: {wrong[0]} is outside [0, {size})")
    given = [x.astype(np.int32) for x in (ids, mask, positions)]
    x = _apply(model, {"params": variables["params"]}, *given)
    if "choice" in variables:
        params = {**variables["params"], "head_kernel": variables["choice"]["kernel"]}  # a label of one class
        fit = _apply(model.clone(head="label", classes=1), {"params": params}, *given)
        return {"tokens": x, "choice": fit[:, 0] + variables["choice"]["bias"]}
    return {"start": x[..., 0], "end": x[..., 1]} if model.head == "span" else x


@partial(jax.jit, static_argnames="model")
def _apply(model, variables, ids, mask, positions):
    # Tokens see no padding, wherever it stands, as if it were another document.
    return model.apply(variables, ids, mask, positions, segments=mask)
