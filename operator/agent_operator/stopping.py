"""How a program of this package is asked to stop. Layer: top, beside __main__; standard library only."""

from __future__ import annotations

import asyncio
import logging
import os
import signal


def stop_on_signals(stopping: asyncio.Event, logger: logging.Logger) -> None:
    """First SIGTERM or SIGINT: set `stopping`. Second: leave at once. To be called again after kopf replaced
    the handlers."""

    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            logger.warning("%s again: leaving at once", number.name)
            os._exit(128 + number)
        logger.info("%s: stopping", number.name)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
