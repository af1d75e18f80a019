"""The mesh, and how state and batches lie on it: made here and nowhere else."""

import os

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from research.errors import UserError

AXIS = "data"


def all_devices():
    """Those that JAX finds, over all processes.

    Raises:
        UserError: 2, where it finds none of the kind that it was asked for.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for JAX_PLATFORMS=cuda where there is none
        asked = os.environ.get("JAX_PLATFORMS", "")
        reason = str(error).splitlines() or ["JAX finds none here; unset it, or install JAX for it"]
        raise UserError(2, f"JAX_PLATFORMS={asked}: no such device: {reason[0]}") from error


def make_mesh(devices=None):
    """All devices (or those given) along one axis, over which batches are split."""
    devices = all_devices() if devices is None else devices
    # Auto: jax.make_mesh's default is Explicit, on which Linen's random layers raise.
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh):
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis=0):
    """Axis `axis` of an array is cut over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def place(tree, sharding):
    """Arrays on the devices; of a batch each process gives the rows that it read."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)
