# SPDX-License-Identifier: Apache-2.0
"""Whether native calls let other threads run."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable


def lets_others_run(call: Callable[[], object]) -> bool:
    """Whether another thread ran during repeated calls, where none is switched to by time."""
    ran, gate = [], threading.Lock()
    gate.acquire()

    def other():
        with gate:
            ran.append(True)

    thread = threading.Thread(target=other)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        gate.release()
        end = time.monotonic() + 10
        while not ran and time.monotonic() < end:
            call()
        ran_meanwhile = bool(ran)
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    return ran_meanwhile
