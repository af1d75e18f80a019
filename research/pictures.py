"""Pictures for the eye: grids of images, heat maps of attention, maps of words; and how a figure is made and kept."""

import pathlib

import numpy as np

from research.errors import UserError


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


def before_and_after(path, before, after):
    """Writes a PNG: images as read, and beside them as augmented.

    Raises:
        UserError: 5, where it cannot be written.
    """
    from PIL import Image

    scale = max(1, 64 // before.shape[1])
    sides = [titled(grid(x, 8, scale), title) for x, title in ((before, "as read"), (after, "as augmented"))]
    try:
        Image.fromarray(np.concatenate(sides, axis=1)).save(path)
    except OSError as error:
        raise UserError(5, f"{path}: cannot be written: {error.strerror}") from error


def attention(path, weights, source, target):
    """Writes a PNG: how much of each source token (column) went into each target token (row).

    Args:
        weights: float[T, S], rows that sum to 1.
        source, target: the tokens' texts.

    Raises:
        UserError: 5, where it cannot be written.
    """
    figure = new_figure(max(4, 1.5 + 0.35 * len(source)), max(3, 1.2 + 0.3 * len(target)))
    axes = figure.subplots()
    drawn = axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(source)), source, rotation=90)
    axes.set_yticks(range(len(target)), target)
    axes.set_xlabel("source")
    axes.set_ylabel("output")
    figure.colorbar(drawn, label="attention weight")
    save(figure, path)


def named_points(path, points, names, title, axes):
    """Writes a PNG of points with their names.

    Args:
        points: float[N, 2].
        axes: labels of the two.

    Raises:
        UserError: 5, where it cannot be written.
    """
    figure = new_figure(10, 8)
    plot = figure.subplots()
    plot.scatter(*points.T, s=12, color="tab:blue")
    middle = (points[:, 0].min() + points[:, 0].max()) / 2
    for name, point in zip(names, points):  # towards the middle: a sentence would run out of the picture
        side = {"xytext": (3, 3), "ha": "left"} if point[0] <= middle else {"xytext": (-3, 3), "ha": "right"}
        plot.annotate(name, point, **side, textcoords="offset points", fontsize=9, parse_math=False)
    plot.set_title(title, parse_math=False)
    plot.set_xlabel(axes[0])
    plot.set_ylabel(axes[1])
    plot.grid(alpha=0.2)
    save(figure, path)


def new_figure(width, height):
    """A matplotlib figure of so many inches that no window system knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure, path, kind="png"):
    """Writes a figure as a PNG or a PDF; the same figure is the same file.

    Raises:
        UserError: 5, where it cannot be written.
    """
    try:
        figure.savefig(
            pathlib.Path(path), dpi=150, format=kind, metadata={"CreationDate": None} if kind == "pdf" else {}
        )
    except OSError as error:
        raise UserError(5, f"{path}: cannot be written: {error.strerror}") from error
