"""Grids of images, for the eye."""

import numpy as np


def grid(images, columns=8, scale=1):
    """Images side by side with a white line between.

    Args:
        images: uint8 or float [N, H, W, C] in [0, 255].
        scale: how many pixels a pixel becomes, each way.

    Returns:
        uint8[H', W', 3].
    """
    images = np.clip(np.asarray(images, np.float32), 0, 255).astype(np.uint8)
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (height + 2) + 2, columns * (width + 2) + 2, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 2) + 2, (i % columns) * (width + 2) + 2
        canvas[top : top + height, left : left + width] = image if channels == 3 else image[..., :1]
    return canvas


def titled(image, title):
    """uint8[H, W, 3] with a line of text above it and a white edge to its right."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (image.shape[1] + 16, image.shape[0] + 16), "white")
    canvas.paste(Image.fromarray(image), (0, 16))
    ImageDraw.Draw(canvas).text((2, 2), title, fill="black")
    return np.asarray(canvas)
