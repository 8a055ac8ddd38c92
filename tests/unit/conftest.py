from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest

from trainer.stopping import STOP_SIGNALS


@pytest.fixture
def signals_restored() -> Iterator[None]:
    """For what listens to signals in this process, as commands do until they end."""
    handlers, hook = {number: signal.getsignal(number) for number in STOP_SIGNALS}, sys.unraisablehook
    wakeup = signal.set_wakeup_fd(-1)
    yield
    signal.set_wakeup_fd(wakeup)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    sys.unraisablehook = hook
