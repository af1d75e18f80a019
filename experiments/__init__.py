"""The scripts: python -m experiments.<name>. Each parses its flags, calls one function and prints what it returns."""

import os
import signal
import sys


def _interrupted(number, frame):
    os.write(2, b"error: interrupted; nothing was begun\n")
    os._exit(130)


if sys.argv[0] == "-m":  # python -m is about to run one of them: Ctrl-C while it imports is one line, too
    signal.signal(signal.SIGINT, _interrupted)
