"""The platform that a program is traced for, which selects its kernels."""

import functools

import jax


def platform():
    """Returns the platform that the code being traced will run on: "cpu", "gpu" or "tpu".

    This is the platform of `traced_for`, then that of `jax.default_device`, then JAX's default backend.
    """
    device = jax.config.jax_default_device
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def traced_for(mesh, function):
    """Returns `function`, which while it is traced finds the platform of the mesh's devices.

    A mesh need not be of JAX's default backend: a host with a GPU can also train on its CPU. JAX caches traces of inner
    functions by `jax.default_device`, so that no trace for one platform is used for another.
    """
    device = mesh.local_devices[0]

    @functools.wraps(function)
    def traced(*arguments, **named):
        with jax.default_device(device):
            return function(*arguments, **named)

    return traced
