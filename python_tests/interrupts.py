# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C at a chosen moment, and how long it goes unheard."""

from __future__ import annotations

import os
import signal
import threading
import time


class InterruptedAfter:
    """Ctrl-C after so many seconds of the processor in this thread: other load does not count.

    Attributes:
        late: seconds of the processor from there to the end of the block.
    """

    def __init__(self, seconds):
        self.seconds, self.late = seconds, None
        self._clock = time.pthread_getcpuclockid(threading.get_ident())

    def __enter__(self):
        self._end = time.clock_gettime(self._clock) + self.seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self.late = time.clock_gettime(self._clock) - self._sent

    def _watch(self):
        while time.clock_gettime(self._clock) < self._end:
            if self._over.wait(0.002):
                return
        self._sent = time.clock_gettime(self._clock)
        os.kill(os.getpid(), signal.SIGINT)
