"""Augmentation on the device, inside the step: pure functions of (key, image or tokens), one key an example.

An image is uint8 or float [H, W, C] in [0, 255], tokens are int32[T], padded. What is drawn depends on the key alone,
so that an example at one place of the global batch is changed alike on one device or eight, in one microbatch or four.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.ndimage import map_coordinates

from research.data.tokenize import BEGIN, END, PAD, UNKNOWN
from research.randomness import draw, fold

SPAN = 3  # mean length of a masked span


def make_augment(settings, dataset):
    """Builds (keys[B], batch) -> batch from the section data.augment; returns None if it changes nothing.

    Every field in `dataset.augmented` is changed, with separate random draws. `swap` applies the same reordering to
    the fields that move with it. Mixup pairs the neighbours 2i and 2i + 1 of the batch, which the order has shuffled,
    and adds `mixed_label` and `mix`. Masked examples are not mixed in.
    """
    changes = []
    if settings["crop_padding"]:
        changes.append(("crop", lambda key, image: random_crop(key, image, settings["crop_padding"])))
    if settings["flip"]:
        changes.append(("flip", random_flip))
    if settings["rotation"] or settings["scale"]:
        changes.append(("warp", lambda key, image: random_warp(key, image, settings["rotation"], settings["scale"])))
    if settings["cutout"]:
        changes.append(("cutout", lambda key, image: cutout(key, image, settings["cutout"])))
    if settings["word_dropout"]:
        changes.append(("word_dropout", lambda key, tokens: word_dropout(key, tokens, settings["word_dropout"])))
    if settings["swap"]:
        changes.append(("swap", lambda key, tokens: swapped_places(key, tokens, settings["swap"])))
    if settings["span_mask"]:
        changes.append(("span_mask", lambda key, tokens: span_mask(key, tokens, settings["span_mask"])))
    if not changes and not settings["mixup"]:
        return None

    def change(key, x, moving):
        """Changes one field of an example, and reorders the fields that move with it."""
        for purpose, function in changes:
            found = function(fold(key, purpose), x)
            if purpose == "swap":
                x, *moving = (row[found] for row in (x, *moving))
            else:
                x = found
        return x, *moving

    def augment(keys, batch):
        for number, (field, moving) in enumerate(dataset.augmented.items()):
            own = jax.vmap(lambda key: fold(key, field))(keys) if number else keys  # the first uses the example's key
            changed = jax.vmap(change)(own, batch[field], [batch[name] for name in moving])
            batch = {**batch, **dict(zip((field, *moving), changed))}
        return mixup(keys, batch, settings["mixup"]) if settings["mixup"] else batch

    return augment


def random_crop(key, image, padding):
    """A window of the image's own size out of the image with `padding` zeros on each side."""
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    return lax.dynamic_slice(padded, (top, left, 0), image.shape)


def random_flip(key, image):
    """Left and right exchanged, half of the time."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def random_warp(key, image, rotation, scale):
    """Rotated by up to `rotation` degrees and scaled by 1 - scale to 1 + scale: bilinear, zeros outside."""
    turn, size = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
    angle, zoom = jnp.deg2rad(turn * rotation), 1 + size * scale
    height, width = image.shape[:2]
    y, x = jnp.meshgrid(jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij")
    sin, cos = jnp.sin(angle) / zoom, jnp.cos(angle) / zoom
    at = [cos * y - sin * x + (height - 1) / 2, sin * y + cos * x + (width - 1) / 2]
    sample = lambda channel: map_coordinates(channel, at, order=1, mode="constant", cval=0.0)
    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image.astype(jnp.float32))


def cutout(key, image, side):
    """Zeros in a square whose centre lies anywhere in the image. DeVries and Taylor 2017 (arXiv:1708.04552)."""
    height, width = image.shape[:2]
    down, right = jax.random.split(key)
    top = jax.random.randint(down, (), 0, height) - side // 2
    left = jax.random.randint(right, (), 0, width) - side // 2
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    inside = (y >= top) & (y < top + side) & (x >= left) & (x < left + side)
    return jnp.where(inside, jnp.zeros((), image.dtype), image)


def is_word(tokens):
    """Returns bool[T]: whether a token may be changed, which padding, begin and end may not."""
    return (tokens != PAD) & (tokens != BEGIN) & (tokens != END)


def word_dropout(key, tokens, rate):
    """Each token unknown with probability `rate`. Bowman et al. 2016, section 3.1 (arXiv:1511.06349)."""
    return jnp.where(is_word(tokens) & draw(jax.random.bernoulli, key, rate, tokens.shape), UNKNOWN, tokens)


def span_mask(key, tokens, rate):
    """Spans of geometric length, of mean SPAN, made unknown; about `rate` of the tokens in all.

    A token is in a span if one began there, or if one that the token before is in goes on.
    """
    begin, go_on = draw(jax.random.uniform, key, (2, *tokens.shape))
    # In the steady state a share of p + (1 - p) s (1 - 1/SPAN) = s is inside, for a chance p of a beginning.
    chance = rate / SPAN / (1 - rate * (1 - 1 / SPAN))

    def step(inside, drawn):
        begin, go_on = drawn
        inside = (begin < chance) | (inside & (go_on < 1 - 1 / SPAN))
        return inside, inside

    _, inside = lax.scan(step, jnp.zeros((), bool), (begin, go_on))
    return jnp.where(is_word(tokens) & inside, UNKNOWN, tokens)


def swapped_places(key, tokens, rate):
    """Returns int32[T], the order of the tokens after swapping neighbours: x[swapped_places(...)].

    Each pair is swapped with probability `rate`. A token belongs to at most one pair.
    """
    offset, pairs = jax.random.split(key)
    places = jnp.arange(tokens.shape[0])
    first = (places + jax.random.bernoulli(offset)) % 2 == 0  # whether pairs begin at the even places or the odd
    chosen = first & draw(jax.random.bernoulli, pairs, rate, tokens.shape) & is_word(tokens)
    chosen &= jnp.append(is_word(tokens)[1:], False)
    return places + chosen - jnp.append(False, chosen[:-1])


def mixup(keys, batch, alpha):
    """x = mix x + (1 - mix) partner, mix of Beta(alpha, alpha). Zhang et al. 2018, section 2 (arXiv:1710.09412)."""
    mix = jax.vmap(lambda key: jax.random.beta(fold(key, "mixup"), alpha, alpha))(keys)  # [B]
    mix = jnp.where(neighbours(batch["mask"]) > 0, mix, 1.0)
    share = mix[:, None, None, None]
    image = batch["image"].astype(jnp.float32)
    # where, not a product: what the mask hides may be anything.
    image = jnp.where(share < 1, share * image + (1 - share) * neighbours(image), image)
    return {**batch, "image": image, "mixed_label": neighbours(batch["label"]), "mix": mix}


def neighbours(x):
    """Each row's partner: 1, 0, 3, 2, ..."""
    return x.reshape(x.shape[0] // 2, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)
