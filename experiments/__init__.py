"""The scripts: python -m experiments.<name>. Each parses its flags, calls one function and prints what it returns."""

import os
import signal
import sys


def _interrupted(number, frame):
    os.write(2, b"error: interrupted; nothing was begun\n")
    os._exit(130)


def _open_standard_streams():
    """Opens closed streams on the null device. Otherwise the next file that is opened gets the number of stderr."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


if sys.argv[0] == "-m":  # python -m is about to run one of them: Ctrl-C while it imports is one line, too
    signal.signal(signal.SIGINT, _interrupted)
    _open_standard_streams()
