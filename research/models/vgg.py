"""VGG. Simonyan and Zisserman 2015, table 1, columns A, D, E (arXiv:1409.1556)."""

import flax.linen as nn

from research.errors import pick
from research.models.convolution import max_pool
from research.models.layers import Conv, Dropout, Norm, head

STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # 3x3 convolutions a stage


class VGG(nn.Module):
    """Five stages of convolutions, a max-pool after each, then dense layers and the classifier's.

    norm="none", dense=(4096, 4096) on 224x224 images is the paper's network; norm="batch", dense=() is the usual
    one for 32x32 images.
    """

    depth: int = 16
    width: int = 64
    norm: str = "batch"
    dense: tuple[int, ...] = ()
    dropout: float = 0.0
    classes: int | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image, mask=None, *, train=False):  # [B, H, W, C] -> [B, classes]
        x = image
        for stage, convolutions in enumerate(pick(STAGES, self.depth, "config.model.depth")):
            for _ in range(convolutions):
                x = Conv(self.width * min(2**stage, 8), dtype=self.dtype)(x)
                x = nn.relu(Norm(self.norm, self.dtype)(x, mask, train=train))
            x = max_pool(x, 2) if min(x.shape[1:3]) > 1 else x
        x = x.reshape(x.shape[0], -1)
        for width in self.dense:
            x = Dropout(self.dropout)(nn.relu(nn.Dense(width, dtype=self.dtype)(x)), train=train)
        return head(self.classes, self.dtype)(x)
