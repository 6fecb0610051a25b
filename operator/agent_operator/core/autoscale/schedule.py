"""Time windows with a minimum of their own. Layer: core, pure; imports cronsim and zoneinfo.

The one idea: a window is open while its most recent start lies after its most recent end, both found
backwards from now, so nothing has to be remembered and a restart changes nothing.

cronsim reads the expressions: it is maintained, has no dependencies, is typed, goes backwards and treats
summer time as Debian's cron does (a start in the hour that is skipped happens right after it; one in the
hour that is repeated happens once, the first time).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from agent_operator.core.autoscale.model import Window

_MINUTE = timedelta(minutes=1)
_SHIFT = timedelta(hours=3)
"""More than any clock is ever turned back."""
_FIELDS = 5


def minimum(windows: tuple[Window, ...], now: datetime) -> tuple[int, str]:
    """The greatest minimum of the windows that are open and that window's name; (0, "") if none is."""
    opened = [window for window in windows if is_open(window, now)]
    greatest = max(opened, key=lambda window: (window.min_replicas, window.name), default=None)
    return (0, "") if greatest is None else (greatest.min_replicas, greatest.name)


def next_edge(windows: tuple[Window, ...], now: datetime) -> datetime | None:
    """When a window opens or closes next, in UTC; None if none ever does."""
    edges = [_after(cron, window.time_zone, now) for window in windows for cron in (window.start, window.end)]
    return min((edge for edge in edges if edge is not None), default=None)


def is_open(window: Window, now: datetime) -> bool:
    """Whether its last start lies after its last end. A window that cannot be read is closed."""
    start = _before(window.start, window.time_zone, now)
    end = _before(window.end, window.time_zone, now)
    return start is not None and (end is None or start > end)


def problems(windows: tuple[Window, ...]) -> list[str]:
    """What makes windows unusable: the field, what is wrong, and how to mend it."""
    return [problem for index, window in enumerate(windows) for problem in _problems(index, window)]


def _problems(index: int, window: Window) -> Iterator[str]:
    where = f"spec.autoscaling.schedules[{index}]"
    if _zone(window.time_zone) is None:
        yield (
            f"{where}.timeZone: {window.time_zone!r} is not a known time zone; "
            "use an IANA name such as Europe/Berlin or Etc/UTC"
        )
    for field, cron in (("start", window.start), ("end", window.end)):
        problem = _cron_problem(cron)
        if problem:
            yield (
                f"{where}.{field}: {cron!r} is not a cron expression ({problem}); write minute, hour, "
                "day of month, month and day of week, e.g. '0 8 * * 1-5'"
            )


def _cron_problem(cron: str) -> str:
    if len(cron.split()) != _FIELDS:
        return f"{len(cron.split())} fields instead of {_FIELDS}"
    try:
        found = next(CronSim(cron, datetime(2000, 1, 1, tzinfo=UTC)), None)
    except CronSimError as error:
        text = str(error)
        return text[:1].lower() + text[1:]
    return "" if found else "there is no such date"


def _before(cron: str, zone: str, now: datetime) -> datetime | None:
    """The last time it was due, now included."""
    minute = _floor(now)
    return next((due for due in _due(cron, zone, minute, backwards=True) if due <= minute), None)


def _after(cron: str, zone: str, now: datetime) -> datetime | None:
    """The first time after now that it is due."""
    minute = _floor(now)
    return next((due for due in _due(cron, zone, minute, backwards=False) if due > minute), None)


def _floor(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(second=0, microsecond=0)


@lru_cache(maxsize=4096)
def _due(cron: str, zone: str, minute: datetime, *, backwards: bool) -> tuple[datetime, ...]:
    """The times that may be the one looked for, in order, in UTC.

    cronsim walks the wall clock, on which an hour that is repeated is one hour. Where a clock is turned
    near `minute`, the walk begins far enough on the other side and the caller skips what is too much.
    """
    local = _zone(zone)
    if local is None or _cron_problem(cron):
        return ()
    begin = minute + _MINUTE if backwards else minute
    sides = {(minute + shift).astimezone(local).utcoffset() for shift in (-_SHIFT, _SHIFT)}
    if len(sides) > 1:
        begin += _SHIFT if backwards else -_SHIFT
    found = []
    for due in CronSim(cron, begin.astimezone(local), reverse=backwards):
        found.append(due.astimezone(UTC))
        if (found[-1] <= minute) if backwards else (found[-1] > minute):
            break
    return tuple(found)


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        return None
