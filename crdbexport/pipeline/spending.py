"""What the code of plugins costs a run: the time within its calls, and what they raised."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from crdbexport.errors import RecordRefusedError, SinkBusyError


@dataclass
class Spent:
    """What one sink, transform or observer has spent; only its own thread adds to it."""

    seconds: float = 0.0
    batches: int = 0
    errors: int = 0
    _since: float | None = None

    @property
    def so_far(self) -> float:
        """The seconds, with those of a call that has not come back."""
        since = self._since
        return self.seconds + (time.monotonic() - since if since is not None else 0.0)

    @contextmanager
    def call(self, *, batches: int = 0) -> Iterator[None]:
        """Count a call; that a sink is busy, or refuses records, is no error."""
        self._since = began = time.monotonic()
        try:
            yield
            self.batches += batches
        except (SinkBusyError, RecordRefusedError):
            raise
        except BaseException:
            self.errors += 1
            raise
        finally:
            self._since = None
            self.seconds += time.monotonic() - began
