"""The weights of PyTorch's nn.RNN, nn.LSTM and nn.GRU as parameters of research.models.rnn.Recurrent.

PyTorch keeps [gates * H, inputs] and two biases a gate, of which only their sum has an effect, but for the gru's n.
"""

import re

import numpy as np

from research.errors import UserError
from research.models.rnn import CELLS


def from_torch(weights, cell):
    """Parameters of Recurrent from PyTorch's state dict of arrays: {"weight_ih_l0": [G * H, D], ...}.

    Args:
        cell: name in research.models.rnn.CELLS; the gates stand in the same order.

    Raises:
        UserError: 3, for a weight that is missing, unknown or of another shape.
    """
    width = weights["weight_hh_l0"].shape[1] if "weight_hh_l0" in weights else 0
    gates, params, left = CELLS[cell].gates, {}, dict(weights)
    for name in [name for name in weights if name.startswith("weight_hh_l")]:
        place = name.removeprefix("weight_hh_")
        found = re.fullmatch(r"l(\d+)(_reverse)?", place)
        try:
            parts = [
                np.asarray(left.pop(f"{kind}_{place}")) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
        except KeyError as error:
            raise UserError(3, f"weights of a PyTorch {cell}: {error.args[0]} is missing") from None
        shapes = [part.shape for part in parts]
        rows = gates * width
        if found is None or shapes != [(rows, shapes[0][-1]), (rows, width), (rows,), (rows,)]:
            raise UserError(3, f"weights of a PyTorch {cell}: {name}: shapes {shapes} are not those of {width} units")
        kernel, recurrent, bias, own = parts
        name = f"layer{found[1]}{'_backward' if found[2] else ''}"
        if cell == "gru":  # the reset gate multiplies n's second bias
            params[f"{name}_recurrent_bias"] = own[2 * width :]
            own = np.concatenate([own[: 2 * width], np.zeros(width, own.dtype)])
        params |= {f"{name}_kernel": kernel.T, f"{name}_recurrent_kernel": recurrent.T, f"{name}_bias": bias + own}
    if left or not params:
        raise UserError(3, f"weights of a PyTorch {cell}: {', '.join(left) or 'none'} cannot be placed")
    return params


def to_torch(params, cell):
    """The inverse: PyTorch's state dict of arrays; its second biases are zeros, but for the gru's n."""
    weights = {}
    for name in [name for name in params if name.endswith("_recurrent_kernel")]:
        prefix = name.removesuffix("_recurrent_kernel")
        place = prefix.replace("layer", "l").replace("_backward", "_reverse")
        bias = np.asarray(params[f"{prefix}_bias"])
        own = np.zeros_like(bias)
        if cell == "gru":
            own[-params[name].shape[0] :] = params[f"{prefix}_recurrent_bias"]
        weights[f"weight_ih_{place}"] = np.asarray(params[f"{prefix}_kernel"]).T
        weights[f"weight_hh_{place}"] = np.asarray(params[name]).T
        weights |= {f"bias_ih_{place}": bias, f"bias_hh_{place}": own}
    return weights
