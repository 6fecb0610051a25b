"""A thread that is replaced when it dies. Layer: llm; standard library only.

The one idea: work that must go on is a function called again and again; whatever ends the thread between
two calls (a defect, a SystemExit out of a library) costs one call and not the process, until it happens so
often that the process is better replaced than the thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger("agent_runtime.engine")

DEATHS = 5
WINDOW_SECONDS = 60.0
"""So many deaths within so many seconds are one too many."""


class LostError(Exception):
    """Raised by the work to say that repeating it is useless; the cause says why."""


class SupervisedThread:
    """Calls `work` until `stop`. After a death `on_death(error)` is called and a new thread goes on; when
    that is useless, `on_lost(error)` is called and none does. Both run in the dying thread."""

    def __init__(
        self,
        name: str,
        work: Callable[[], None],
        on_death: Callable[[BaseException], None],
        on_lost: Callable[[BaseException], None],
    ) -> None:
        self._name, self._work, self._on_death, self._on_lost = name, work, on_death, on_lost
        self._deaths: deque[float] = deque(maxlen=DEATHS)
        self._stopped = False
        self.lost = False
        """Whether nobody calls `work` any more because it was useless."""

    def start(self) -> None:
        """Begins, or goes on in a new thread."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No call begins any more."""
        self._stopped = True

    def join(self) -> None:
        """Returns once the thread has ended after `stop`."""
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopped:
                self._work()
        except LostError as error:
            self._lose(error.__cause__ or error)
        except BaseException as error:
            log.exception("the thread %s died", self._name)
            self._survive(error)

    def _survive(self, error: BaseException) -> None:
        now = time.monotonic()
        self._deaths.append(now)
        if len(self._deaths) == DEATHS and now - self._deaths[0] < WINDOW_SECONDS:
            self._lose(error)
            return
        self._on_death(error)
        self.start()

    def _lose(self, error: BaseException) -> None:
        self.lost = self._stopped = True
        self._on_lost(error)
