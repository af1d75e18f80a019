"""Training in a process of its own, which a test interrupts, stops or kills."""

import os
import subprocess
import sys
import time

from conftest import ROOT

TINY = f"--config={ROOT}/configs/digits_cnn.py:tiny"
COMMAND = [sys.executable, "-m", "experiments.train", TINY, "--workdir=run"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}


def train(*flags, cwd, **own):
    """Starts it; `own` are arguments of Popen, which reads stdout and stderr if they are not among them."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*COMMAND, *flags], cwd=cwd, env=ENVIRONMENT, **{**pipes, **own})


def wait_until(true, process):
    while not true():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
