"""Recurrent layers: vanilla RNN, LSTM and GRU, stacked, in one direction or both, with masks.

With x the input, h the state before and h' after, and one row of weights a gate:

    rnn    h' = tanh(W x + U h + b)                                                      (Elman 1990)
    lstm   i, f, o = sigmoid(W x + U h + b); g = tanh(W x + U h + b); c' = f c + i g; h' = o tanh(c')
           (Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000; gates in the order i, f, g, o)
    gru    r, z = sigmoid(W x + U h + b); n = tanh(W x + b + r (U h + d)); h' = (1 - z) n + z h
           (Cho et al. 2014 with the reset gate behind the product, as PyTorch and cuDNN have it; order r, z, n)

W x is one matrix product for all steps, the recurrence one scan. The scan's gradient is ours: the forward pass keeps
the gates, the backward pass carries the states' gradient alone, and U's gradient is one product after it, where
autodiff would add it up step by step.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from research.errors import pick
from research.models.layers import Dropout


class Cell(NamedTuple):
    """One step as elementwise arithmetic: `x` is W x + b and `r` is U h + d, both [B, gates * H]."""

    gates: int
    states: int  # arrays [B, H] that are carried, h first
    forward: Callable  # x, r, states -> new states, saved
    backward: Callable  # saved, states, gradients of new states -> gradients of states, of x, of r


def _rnn_forward(x, r, states):
    h = jnp.tanh(x + r)
    return (h,), (h,)


def _rnn_backward(saved, states, gradients):
    ((h,), (dh,)) = saved, gradients
    da = dh * (1 - h * h)
    return (jnp.zeros_like(dh),), da, da


def _lstm_forward(x, r, states):
    i, f, g, o = jnp.split(x + r, 4, axis=-1)
    i, f, g, o = nn.sigmoid(i), nn.sigmoid(f), jnp.tanh(g), nn.sigmoid(o)
    c = f * states[1] + i * g
    t = jnp.tanh(c)
    return (o * t, c), (i, f, g, o, t)


def _lstm_backward(saved, states, gradients):
    i, f, g, o, t = saved
    dh, dc = gradients
    dc = dc + dh * o * (1 - t * t)
    da = jnp.concatenate(
        [dc * g * i * (1 - i), dc * states[1] * f * (1 - f), dc * i * (1 - g * g), dh * t * o * (1 - o)], axis=-1
    )
    return (jnp.zeros_like(dh), dc * f), da, da


def _gru_forward(x, r, states):
    (h,) = states
    x_r, x_z, x_n = jnp.split(x, 3, axis=-1)
    h_r, h_z, h_n = jnp.split(r, 3, axis=-1)
    r, z = nn.sigmoid(x_r + h_r), nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * h_n)
    return (n + z * (h - n),), (r, z, n, h_n)


def _gru_backward(saved, states, gradients):
    (r, z, n, h_n), (h,), (dh,) = saved, states, gradients
    dn = dh * (1 - z) * (1 - n * n)
    dz = dh * (h - n) * z * (1 - z)
    dr = dn * h_n * r * (1 - r)
    return (dh * z,), jnp.concatenate([dr, dz, dn], axis=-1), jnp.concatenate([dr, dz, dn * r], axis=-1)


CELLS = {
    "rnn": Cell(1, 1, _rnn_forward, _rnn_backward),
    "lstm": Cell(4, 2, _lstm_forward, _lstm_backward),
    "gru": Cell(3, 1, _gru_forward, _gru_backward),
}


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def recur(cell, reverse, x, kernel, bias, mask, states):
    """The recurrence over time.

    Args:
        cell: name in CELLS.
        reverse: from the last step to the first.
        x: [T, B, gates * H], W x + b.
        kernel: [H, gates * H], U.
        bias: [gates * H], d; zeros but for the gru's n.
        mask: bool [T, B]; a step where it is False leaves the states as they are and gives zeros.
        states: arrays [B, H], before the first step.

    Returns:
        outputs [T, B, H], and the states after the last step.
    """
    return _recur_forward(cell, reverse, x, kernel, bias, mask, states)[0]


def _recur_forward(cell, reverse, x, kernel, bias, mask, states):
    forward = CELLS[cell].forward

    def step(states, inputs):
        x, keep = inputs
        new, saved = forward(x, states[0] @ kernel + bias[None], states)
        after = tuple(jnp.where(keep[:, None], a, b) for a, b in zip(new, states))
        return after, (jnp.where(keep[:, None], new[0], 0), states, saved)

    last, (outputs, before, saved) = lax.scan(step, states, (x, mask), reverse=reverse)
    return (outputs, last), (kernel, mask, before, saved)


def _recur_backward(cell, reverse, saved, gradients):
    kernel, mask, before, gates = saved
    to_outputs, to_last = gradients
    backward = CELLS[cell].backward

    def step(to_after, inputs):
        dy, keep, states, saved = inputs
        keep = keep[:, None]
        to_new = [jnp.where(keep, d, 0) for d in to_after]
        to_new[0] = to_new[0] + jnp.where(keep, dy, 0)
        to_states, dx, dr = backward(saved, states, tuple(to_new))
        through = dr @ kernel.T
        to_before = [jnp.where(keep, a, b) for a, b in zip((to_states[0] + through, *to_states[1:]), to_after)]
        return tuple(to_before), (dx,) if dr is dx else (dx, dr)

    to_first, both = lax.scan(step, to_last, (to_outputs, mask, before, gates), reverse=not reverse)
    dx, dr = both[0], both[-1]
    width = kernel.shape[0]
    to_kernel = before[0].reshape(-1, width).T @ dr.reshape(-1, dr.shape[-1])
    return dx, to_kernel, dr.sum(axis=(0, 1)), None, to_first


recur.defvjp(_recur_forward, _recur_backward)


class Recurrent(nn.Module):
    """A stack of recurrent layers, in one direction or both."""

    inputs: int  # width of what comes in
    width: int  # H, of each direction
    layers: int = 1
    cell: str = "gru"
    bidirectional: bool = False
    dropout: float = 0.0  # between layers; above the last there is none
    dtype: str = "float32"

    def setup(self):
        self.weights = [
            [self._weights(f"layer{i}{suffix}", self.inputs if i == 0 else self.width * self.directions)
             for suffix in ("", "_backward")[: self.directions]]
            for i in range(self.layers)
        ]  # fmt: skip
        self.drop = Dropout(self.dropout)

    @property
    def directions(self):
        return 2 if self.bidirectional else 1

    def _weights(self, name, inputs):
        gates = pick(CELLS, self.cell, "config.model.cell").gates
        # One orthogonal matrix a gate.
        square = lambda key, shape, dtype: jnp.concatenate(
            [nn.initializers.orthogonal()(k, (shape[0], shape[0]), dtype) for k in jax.random.split(key, gates)], axis=1
        )
        wide, zeros = nn.initializers.glorot_uniform(), nn.initializers.zeros
        kernel = self.param(f"{name}_kernel", wide, (inputs, gates * self.width), jnp.float32)
        recurrent = self.param(f"{name}_recurrent_kernel", square, (self.width, gates * self.width), jnp.float32)
        bias = self.param(f"{name}_bias", _initial_bias(self.cell), (gates * self.width,), jnp.float32)
        own = jnp.zeros((gates * self.width,))
        if self.cell == "gru":  # those of r and z would only repeat the bias
            own = self.param(f"{name}_recurrent_bias", zeros, (self.width,), jnp.float32)
            own = jnp.pad(own, (2 * self.width, 0))
        return tuple(x.astype(self.dtype) for x in (kernel, recurrent, bias, own))

    def initial(self, rows):
        """Zero states for a batch: [layer] of arrays [B, H * directions]."""
        zeros = jnp.zeros((rows, self.width * self.directions), self.dtype)
        return [(zeros,) * CELLS[self.cell].states for _ in range(self.layers)]

    def __call__(self, x, mask, initial=None, *, train=False):
        """Runs over whole sequences.

        Args:
            x: float[B, T, inputs].
            mask: [B, T], 0 where a sequence has ended; padding stands at the right.
            initial: states as `initial` gives them; zeros, if not given.

        Returns:
            outputs [B, T, H * directions], zero where masked, and the states at each row's last real step (of the
            backward direction: at its first), [layer] of arrays [B, H * directions].
        """
        x, steps = jnp.swapaxes(x, 0, 1).astype(self.dtype), jnp.swapaxes(mask, 0, 1) > 0  # [T, B, ...]
        initial, last = initial or self.initial(x.shape[1]), []
        for i, directions in enumerate(self.weights):
            if i:
                x = self.drop(x, train=train)
            projected = jnp.concatenate([kernel for kernel, *_ in directions], axis=1)
            bias = jnp.concatenate([bias for _, _, bias, _ in directions])
            projected = jnp.split(x @ projected + bias.reshape(1, 1, -1), len(directions), axis=-1)
            states = [jnp.split(state, len(directions), axis=-1) for state in initial[i]]
            found = [
                recur(self.cell, bool(d), projected[d], recurrent, own, steps, tuple(state[d] for state in states))
                for d, (_, recurrent, _, own) in enumerate(directions)
            ]
            x = jnp.concatenate([outputs for outputs, _ in found], axis=-1)
            last.append(tuple(jnp.concatenate(each, axis=-1) for each in zip(*(states for _, states in found))))
        return jnp.swapaxes(x, 0, 1), last


def step(cell, weights, states, x, drop=lambda i, x: x):
    """One time step through a stack of one direction, as a pure function for loops.

    Args:
        weights: Recurrent.weights.
        states: [layer] of arrays [B, H].
        x: [B, inputs].
        drop: (i, x) -> x, applied to what layer i, from 1, is given.

    Returns:
        the top layer's output [B, H], and the new states.
    """
    after = []
    for i, (((kernel, recurrent, bias, own),), before) in enumerate(zip(weights, states)):
        x = drop(i, x) if i else x
        new, _ = CELLS[cell].forward(x @ kernel + bias[None], before[0] @ recurrent + own[None], before)
        x = new[0]
        after.append(new)
    return x, after


def _initial_bias(cell):
    """Zeros, and ones for the lstm's forget gate (Jozefowicz et al. 2015)."""

    def init(key, shape, dtype):
        bias = jnp.zeros(shape, dtype)
        return bias if cell != "lstm" else bias.at[shape[0] // 4 : shape[0] // 2].set(1)

    return init
