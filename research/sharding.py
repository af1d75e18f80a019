"""The mesh, and how state and batches lie on it: made here and nowhere else."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def make_mesh(devices=None):
    """All devices (or those given) along one axis, over which batches are split."""
    devices = jax.devices() if devices is None else devices
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
