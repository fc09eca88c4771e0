"""The one door to tenacity: what is tried again, how often, at whose cost, and how long to wait in between."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import tenacity

T = TypeVar("T")

# Digits only: float() would also take "nan", "inf" and "1_000", and a sleep of 1e12 s overflows.
RETRY_AFTER_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)

# The numbers of botocore's retry mode "standard".
BUDGET_TOKENS = 500
RETRY_TOKENS = 14
THROTTLED_RETRY_TOKENS = 5
CLEAN_SUCCESS_TOKENS = 1

log = logging.getLogger(__name__)


class TransientError(Exception):
    """This attempt failed and another may not. `final` is what to raise when no attempt is left.

    `throttled` says that the server asks for fewer requests; `attempts` is the most that this kind of failure deserves.
    """

    def __init__(
        self,
        final: Exception,
        *,
        retry_after: float | None = None,
        throttled: bool = False,
        attempts: int | None = None,
    ) -> None:
        super().__init__(str(final))
        self.final = final
        self.retry_after = retry_after
        self.throttled = throttled
        self.attempts = attempts

    @property
    def tokens(self) -> int:
        """What another attempt costs."""
        return THROTTLED_RETRY_TOKENS if self.throttled else RETRY_TOKENS


@dataclass
class RetryBudget:
    """A bucket of tokens that all retries of one client share, so that they do not multiply an outage.

    A retry is paid in advance and paid back if it works; clean successes fill the bucket up again. `denied` counts the
    retries that it could not pay.
    """

    tokens: int = BUDGET_TOKENS
    capacity: int = BUDGET_TOKENS
    denied: int = 0

    def pay(self, tokens: int) -> bool:
        """Take so many tokens; where there are not enough of them, none is taken."""
        if tokens > self.tokens:
            if not self.denied:
                spent = {"event": "retry_budget_spent"}
                log.warning("too many requests fail: they are no longer tried again, until others succeed", extra=spent)
            self.denied += 1
            return False
        self.tokens -= tokens
        return True

    def put_back(self, tokens: int) -> None:
        self.tokens = min(self.capacity, self.tokens + tokens)


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with full jitter; what the server asks for with Retry-After comes first, up to a bound."""

    attempts: int = 5
    base_seconds: float = 0.25
    cap_seconds: float = 20.0
    retry_after_cap_seconds: float = 120.0

    def wait_seconds(self, attempt: int, retry_after: float | None) -> float:
        """How long to wait after the failed `attempt`, counted from 1."""
        backoff = random.uniform(0, min(self.cap_seconds, self.base_seconds * 2**attempt))  # noqa: S311 (jitter)
        if retry_after is None:
            return backoff
        return min(retry_after, self.retry_after_cap_seconds) + min(backoff, self.base_seconds)


async def with_retries(
    attempt: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    budget: RetryBudget | None = None,
    on_retry: Callable[[TransientError, float], None] = lambda error, seconds: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """The result of the first attempt that succeeds; nothing but `TransientError` is tried again.

    Each retry is paid out of `budget`; where that lacks the tokens, the error stands.
    """
    purse = budget or RetryBudget()
    try:
        result: T = await attempt()
    except TransientError as error:
        return await _tried_again(attempt, error, policy, purse, on_retry, sleep)
    purse.put_back(CLEAN_SUCCESS_TOKENS)
    return result


async def _tried_again(
    attempt: Callable[[], Awaitable[T]],
    failed: TransientError,
    policy: RetryPolicy,
    purse: RetryBudget,
    on_retry: Callable[[TransientError, float], None],
    sleep: Callable[[float], Awaitable[None]],
) -> T:
    """What comes after a first attempt that failed; tenacity has its price, and most requests need only one."""
    paid = 0
    first: list[TransientError] = [failed]

    async def attempted() -> T:
        # tenacity awaits only what it can see to be a coroutine function.
        if first:
            raise first.pop()
        return await attempt()

    def stop(state: tenacity.RetryCallState) -> bool:
        nonlocal paid
        error = _transient(state)
        if state.attempt_number >= min(policy.attempts, error.attempts or policy.attempts):
            return True
        paid = error.tokens
        return not purse.pay(paid)

    def wait(state: tenacity.RetryCallState) -> float:
        return policy.wait_seconds(state.attempt_number, _transient(state).retry_after)

    def tell(state: tenacity.RetryCallState) -> None:
        on_retry(_transient(state), state.upcoming_sleep)

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=stop,
        wait=wait,
        before_sleep=tell,
        sleep=sleep,
        reraise=True,
    )
    try:
        result: T = await retrying(attempted)
    except TransientError as error:
        raise error.final from error.__cause__
    except Exception:
        purse.put_back(paid)  # An answer that nobody likes is an answer.
        raise
    purse.put_back(paid)
    return result


def _transient(state: tenacity.RetryCallState) -> TransientError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, TransientError)  # noqa: S101 (nothing else is retried)
    return error


def retry_after_seconds(value: str | None, date: str | None = None) -> float | None:
    """What a Retry-After header asks for, in seconds from now; None where it says nothing usable.

    A date is read against the answer's own `Date` header, so that a server with a wrong clock is understood.
    """
    if value is None:
        return None
    text = value.strip()
    if RETRY_AFTER_SECONDS.fullmatch(text):
        return float(text)
    until, now = _http_date(text), _http_date(date)
    if until is None:
        return None
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


def _http_date(value: str | None) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(value or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
