"""The entry of ``capsnet`` and ``python -m trainer``."""

import gc
import os
import signal
import sys
from types import FrameType

from trainer.errors import EXIT_INTERRUPTED

COLLECTION = (100_000, 50, 100)
"""Of cyclic garbage: TensorFlow makes a million objects that stay, which Python would otherwise visit again and
again."""


def _nothing_begun(_number: int, _frame: FrameType | None) -> None:
    os._exit(EXIT_INTERRUPTED)


def main() -> int:
    """Runs one command. A stop request during the imports ends the process as promised."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _nothing_begun)
    gc.set_threshold(*COLLECTION)
    from trainer.cli import main as run

    code = run()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads any more; Python would turn the code into 120 when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


if __name__ == "__main__":
    sys.exit(main())
