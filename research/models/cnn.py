"""A convolutional network written as a list of layers."""

import re

import flax.linen as nn

from research.errors import UserError
from research.models.convolution import max_pool
from research.models.layers import Conv, Dropout, head

_LAYER = re.compile(r"(conv|pool|dense)([1-9]\d{0,5})(?:x([1-9]\d{0,2}))?")


class CNN(nn.Module):
    """Convolutions, max-pools and dense layers in the order of `layers`, then the classifier's dense layer.

    A layer is convN (N features, 3x3), convNxK (KxK), poolN (NxN windows side by side) or denseN. A ReLU follows each
    convolution and each dense layer; the first dense layer flattens; dropout stands after dense layers.
    """

    layers: tuple[str, ...] = ("conv32", "pool2", "conv64", "pool2", "conv64", "dense64")
    padding: str = "VALID"
    dropout: float = 0.0
    classes: int | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image, mask=None, *, train=False):  # [B, H, W, C] -> [B, classes]
        if self.padding not in ("VALID", "SAME"):
            raise UserError(2, f"config.model.padding: {self.padding!r} is unknown; known are VALID, SAME")
        x, layers = image, [parse_layer(layer) for layer in self.layers]
        i = 0
        while i < len(layers):
            (kind, number, size), following = layers[i], layers[i + 1] if i + 1 < len(layers) else None
            i += 1
            if kind == "dense":
                x = nn.relu(nn.Dense(number, dtype=self.dtype)(x.reshape(x.shape[0], -1)))
                x = Dropout(self.dropout)(x, train=train)
                continue
            window = number if kind == "pool" else size
            if x.ndim != 4 or (min(x.shape[1:3]) < window and (kind == "pool" or self.padding == "VALID")):
                at = f"{x.shape[1]}x{x.shape[2]}" if x.ndim == 4 else "flat"
                raise UserError(2, f"config.model.layers: {self.layers[i - 1]} has no room: what reaches it is {at}")
            if kind == "pool":
                x = max_pool(x, number)
                continue
            conv = Conv(number, size, padding=self.padding, dtype=self.dtype)
            out = [side - size + 1 if self.padding == "VALID" else side for side in x.shape[1:3]]
            if following and following[0] == "pool" and min(out) >= following[1]:
                # The largest of monotone values is the value of the largest: pool first, a quarter of the work after.
                x = nn.relu(conv(x, between=lambda x: max_pool(x, following[1])))
                i += 1
            else:
                x = nn.relu(conv(x))
        return head(self.classes, self.dtype)(x.reshape(x.shape[0], -1))


def parse_layer(text):
    """conv64x5 -> ("conv", 64, 5)."""
    match = _LAYER.fullmatch(text)
    if not match or (match[3] and match[1] != "conv"):
        raise UserError(2, f"config.model.layers: {text!r} is no layer; one is convN, convNxK, poolN or denseN")
    return match[1], int(match[2]), int(match[3] or 3)
