"""Residual networks. He et al. 2016, table 1 (arXiv:1512.03385), with a stem for small images besides its own."""

import flax.linen as nn

from research.errors import UserError, pick
from research.models.layers import Conv, Norm, head

STAGES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # blocks a stage


class ResNet(nn.Module):
    """Stem, four stages of residual blocks, mean over the image, the classifier's dense layer.

    stem="small" is one 3x3 convolution, for images of 32x32; "large" is the paper's 7x7 with stride 2 and a max-pool.
    In the bottleneck blocks of depth 50 the 3x3 convolution carries the stride, as in most published weights.
    """

    depth: int = 18
    stem: str = "small"
    norm: str = "batch"
    width: int = 64
    classes: int | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image, mask=None, *, train=False):  # [B, H, W, C] -> [B, classes]
        if self.stem not in ("small", "large"):
            raise UserError(2, f"config.model.stem: {self.stem!r} is unknown; known are small, large")
        kernel, stride = (3, 1) if self.stem == "small" else (7, 2)
        x = Conv(self.width, kernel, stride, bias=False, dtype=self.dtype)(image)
        x = nn.relu(Norm(self.norm, self.dtype)(x, mask, train=train))
        if self.stem == "large":
            x = nn.max_pool(x, (3, 3), (2, 2), "SAME")  # overlapping windows: not ours
        for stage, blocks in enumerate(pick(STAGES, self.depth, "config.model.depth")):
            for i in range(blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                x = Block(self.width * 2**stage, stride, self.depth >= 50, self.norm, self.dtype)(x, mask, train=train)
        return head(self.classes, self.dtype)(x.mean(axis=(1, 2)))


class Block(nn.Module):
    """Figure 5 of the paper: two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the features out."""

    width: int
    stride: int
    bottleneck: bool
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x, mask, *, train):  # [B, H, W, C] -> [B, H / stride, W / stride, C']
        def conv_norm(x, features, kernel, stride, name):
            x = Conv(features, kernel, stride, bias=False, dtype=self.dtype, name=f"conv_{name}")(x)
            return Norm(self.norm, self.dtype, name=f"norm_{name}")(x, mask, train=train)

        features = self.width * (4 if self.bottleneck else 1)
        if self.bottleneck:
            y = nn.relu(conv_norm(x, self.width, 1, 1, "1"))
            y = nn.relu(conv_norm(y, self.width, 3, self.stride, "2"))
            y = conv_norm(y, features, 1, 1, "3")
        else:
            y = nn.relu(conv_norm(x, self.width, 3, self.stride, "1"))
            y = conv_norm(y, features, 3, 1, "2")
        if x.shape != y.shape:
            x = conv_norm(x, features, 1, self.stride, "shortcut")
        return nn.relu(x + y)
