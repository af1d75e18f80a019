"""A multi-layer perceptron on flattened images."""

import flax.linen as nn

from research.models.layers import Dropout, head


class MLP(nn.Module):
    """Dense layers with a ReLU after each, then the classifier's."""

    widths: tuple[int, ...] = (256, 256)
    dropout: float = 0.0
    classes: int | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image, mask=None, *, train=False):  # [B, H, W, C] -> [B, classes]
        x = image.reshape(image.shape[0], -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width, dtype=self.dtype)(x))
            x = Dropout(self.dropout)(x, train=train)
        return head(self.classes, self.dtype)(x)
