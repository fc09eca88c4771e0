from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from crdbexport.errors import ClusterUnavailableError, UnreadableError
from crdbexport.retry import RetryBudget, RetryPolicy, TransientError, retry_after_seconds, with_retries

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


class Flaky:
    """Raises the given errors one by one, then answers; records how often it was tried and what was waited."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.tries = 0
        self.slept: list[float] = []
        self.told: list[tuple[str, float]] = []

    async def attempt(self) -> str:
        self.tries += 1
        if self._errors:
            raise self._errors.pop(0)
        return "done"

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def run(self, policy: RetryPolicy, budget: RetryBudget | None = None) -> str:
        def tell(error: TransientError, seconds: float) -> None:
            self.told.append((str(error), seconds))

        return asyncio.run(with_retries(self.attempt, policy, budget=budget, on_retry=tell, sleep=self.sleep))


def transient(message: str = "busy", retry_after: float | None = None, **kind: Any) -> TransientError:
    return TransientError(UnreadableError(message, reason="server_error"), retry_after=retry_after, **kind)


def test_the_first_attempt_that_succeeds_is_the_result() -> None:
    flaky = Flaky(transient(), transient())
    assert flaky.run(RetryPolicy(attempts=5)) == "done"
    assert (flaky.tries, len(flaky.slept)) == (3, 2)


def test_a_success_waits_for_nothing() -> None:
    flaky = Flaky()
    assert flaky.run(RetryPolicy()) == "done"
    assert (flaky.tries, flaky.slept, flaky.told) == (1, [], [])


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_no_more_attempts_are_made_than_allowed_and_the_last_ones_final_error_is_raised(attempts: int) -> None:
    final = ClusterUnavailableError("no node answers")
    flaky = Flaky(*[transient()] * (attempts - 1), TransientError(final), transient())
    with pytest.raises(ClusterUnavailableError) as caught:
        flaky.run(RetryPolicy(attempts=attempts))
    assert caught.value is final
    assert (flaky.tries, len(flaky.slept)) == (attempts, attempts - 1)


def test_the_cause_of_a_failure_survives_the_retries() -> None:
    cause = ConnectionResetError("reset")
    last = transient()
    last.__cause__ = cause
    with pytest.raises(UnreadableError) as caught:
        Flaky(last).run(RetryPolicy(attempts=1))
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        UnreadableError("gone", reason="not_found"),
        ConnectionError("reset"),
        TimeoutError(),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_nothing_but_a_transient_error_is_tried_again(error: BaseException) -> None:
    flaky = Flaky(error)
    with pytest.raises(type(error)):
        flaky.run(RetryPolicy())
    assert (flaky.tries, flaky.slept) == (1, [])


def test_each_retry_is_told_with_its_error_and_its_wait() -> None:
    flaky = Flaky(transient("first"), transient("second", retry_after=3))
    flaky.run(RetryPolicy())
    assert [message for message, _ in flaky.told] == ["first", "second"]
    assert [seconds for _, seconds in flaky.told] == flaky.slept


def test_a_kind_of_failure_may_deserve_fewer_attempts() -> None:
    flaky = Flaky(transient(attempts=2), transient(attempts=2))
    with pytest.raises(UnreadableError):
        flaky.run(RetryPolicy(attempts=5))
    assert flaky.tries == 2
    flaky = Flaky(transient(attempts=9), transient(), transient())
    with pytest.raises(UnreadableError):
        flaky.run(RetryPolicy(attempts=3))
    assert flaky.tries == 3


def test_a_clean_success_puts_one_token_back_and_never_more_than_there_is_room_for() -> None:
    budget = RetryBudget(tokens=498)
    for left in (499, 500, 500):
        Flaky().run(RetryPolicy(), budget)
        assert budget.tokens == left


@pytest.mark.parametrize(("kind", "cost"), [({}, 14), ({"throttled": True}, 5)], ids=["failed", "throttled"])
def test_a_retry_is_paid_in_advance_and_paid_back_if_it_works(kind: dict[str, bool], cost: int) -> None:
    budget = RetryBudget(tokens=100)
    levels: list[int] = []

    async def attempt() -> None:
        levels.append(budget.tokens)
        if len(levels) < 3:
            raise transient(**kind)

    async def sleep(seconds: float) -> None:
        pass

    asyncio.run(with_retries(attempt, RetryPolicy(), budget=budget, sleep=sleep))
    assert levels == [100, 100 - cost, 100 - 2 * cost]
    assert budget.tokens == 100 - cost, "the retry that failed is not paid back"


def test_a_final_refusal_is_an_answer_for_which_the_retry_is_paid_back() -> None:
    budget = RetryBudget(tokens=100)
    with pytest.raises(UnreadableError):
        Flaky(transient(), UnreadableError("gone", reason="not_found")).run(RetryPolicy(), budget)
    assert budget.tokens == 100


@pytest.mark.parametrize(("kind", "retries"), [({}, 35), ({"throttled": True}, 100)], ids=["failed", "throttled"])
def test_a_full_budget_pays_for_so_many_failing_retries_and_then_for_none(kind: dict[str, bool], retries: int) -> None:
    budget = RetryBudget()
    flaky = Flaky(*[transient(**kind)] * 500)
    for _ in range(50):
        with pytest.raises(UnreadableError):
            flaky.run(RetryPolicy(attempts=5), budget)
    assert flaky.tries == 50 + retries
    assert len(flaky.slept) == len(flaky.told) == retries


def test_without_tokens_the_error_stands_at_once_and_that_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    budget = RetryBudget(tokens=13)
    final = ClusterUnavailableError("no node answers")
    for _ in range(2):
        flaky = Flaky(TransientError(final))
        with pytest.raises(ClusterUnavailableError) as caught:
            flaky.run(RetryPolicy(), budget)
        assert caught.value is final
        assert (flaky.tries, flaky.slept, budget.tokens) == (1, [], 13)
    assert budget.denied == 2
    assert [record.event for record in caplog.records] == ["retry_budget_spent"]  # type: ignore[attr-defined]


class BudgetMachine(RuleBasedStateMachine):
    """Requests of all kinds that share a budget."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = RetryBudget()
        self.clean = self.failing_retries = 0

    @rule(kinds=st.lists(st.booleans(), max_size=7), works=st.booleans(), attempts=st.integers(1, 6))
    def request(self, kinds: list[bool], works: bool, attempts: int) -> None:
        end = [] if works else [UnreadableError("gone", reason="not_found")]
        flaky = Flaky(*[transient(throttled=kind) for kind in kinds], *end)
        try:
            flaky.run(RetryPolicy(attempts=attempts), self.budget)
        except UnreadableError as error:
            self.failing_retries += flaky.tries - 1 - (error.reason == "not_found" and flaky.tries > 1)
        else:
            self.clean += flaky.tries == 1
            self.failing_retries += max(0, flaky.tries - 2)

    @rule(tokens=st.sampled_from([1, 5, 14, 10**9]))
    def more_than_was_taken(self, tokens: int) -> None:
        self.budget.put_back(tokens)
        self.clean += tokens

    @invariant()
    def neither_negative_nor_over_its_capacity(self) -> None:
        assert 0 <= self.budget.tokens <= self.budget.capacity

    @invariant()
    def no_more_failing_retries_than_tokens_pay_for(self) -> None:
        assert 5 * self.failing_retries <= 500 + self.clean


BudgetMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
test_the_budget_keeps_its_bounds_whatever_comes = BudgetMachine.TestCase


def test_a_cancelled_wait_ends_the_retries() -> None:
    flaky = Flaky(*[transient()] * 9)

    async def main() -> None:
        policy = RetryPolicy(base_seconds=30, cap_seconds=60)
        task = asyncio.ensure_future(with_retries(flaky.attempt, policy, sleep=lambda seconds: asyncio.sleep(30)))
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert flaky.tries == 1


def waits(policy: RetryPolicy, attempt: int, retry_after: float | None = None) -> Sequence[float]:
    return [policy.wait_seconds(attempt, retry_after) for _ in range(300)]


@pytest.mark.parametrize(("attempt", "bound"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (9, 3.0)])
def test_a_backoff_is_drawn_from_its_whole_range(attempt: int, bound: float) -> None:
    drawn = waits(RetryPolicy(base_seconds=0.25, cap_seconds=3.0), attempt)
    assert 0 <= min(drawn) < bound * 0.1
    assert bound * 0.9 < max(drawn) <= bound


def test_the_waits_of_a_run_of_failures_stay_within_their_bounds() -> None:
    flaky = Flaky(*[transient()] * 4)
    flaky.run(RetryPolicy(attempts=5, base_seconds=1.0, cap_seconds=5.0))
    assert all(0 <= slept <= bound for slept, bound in zip(flaky.slept, (2, 4, 5, 5), strict=True))


@pytest.mark.parametrize(("asked", "least"), [(0.0, 0.0), (0.5, 0.5), (7.0, 7.0), (120.0, 120.0), (1e6, 120.0)])
def test_what_the_server_asks_for_is_waited_and_little_more_up_to_a_cap(asked: float, least: float) -> None:
    policy = RetryPolicy()
    for drawn in (waits(policy, attempt, asked) for attempt in (1, 4)):
        assert all(least <= seconds <= least + policy.base_seconds for seconds in drawn)
        assert max(drawn) > min(drawn), "without jitter all clients come back at once"


def test_retry_after_replaces_the_backoff_of_its_own_attempt_only() -> None:
    flaky = Flaky(transient(retry_after=30), transient())
    flaky.run(RetryPolicy(base_seconds=0.1, cap_seconds=1.0))
    asked, own = flaky.slept
    assert 30 <= asked <= 30.1
    assert own <= 0.4


@pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("3", 3), (" 17 ", 17), ("007", 7), ("999999999", 999999999)])
def test_whole_seconds_are_understood(value: str, seconds: float) -> None:
    assert retry_after_seconds(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "-5",
        "+5",
        "nan",
        "inf",
        "-inf",
        "1e9",
        "1.5",
        "0x10",
        "1_000",
        "²",
        "٣",
        "9" * 10,
        "9" * 400,
        "9" * 5_000,
        "soon",
        "3, 5",
        "3\x00",
        "Wed, 99 Foo 2026 99:99:99 GMT",
        "Wed, 21 Oct 99999999999999999999 07:28:00 GMT",
        "Wed, 21 Oct 2026 07:28:00 +99999999999",
    ],
)
def test_a_value_that_says_nothing_usable_is_passed_over(value: str | None) -> None:
    assert retry_after_seconds(value) is None
    assert retry_after_seconds(value, format_datetime(NOW, usegmt=True)) is None


def http_date(seconds_from_now: float) -> str:
    return format_datetime(NOW + timedelta(seconds=seconds_from_now), usegmt=True)


@pytest.mark.parametrize("skew_days", [-4000, -1, 0, 1, 4000])
def test_a_date_is_read_against_the_servers_own_clock(skew_days: int) -> None:
    skew = skew_days * 86_400
    assert retry_after_seconds(http_date(skew + 90), http_date(skew)) == 90


def test_a_date_without_the_servers_own_is_read_against_ours() -> None:
    asked = retry_after_seconds(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert asked is not None
    assert 55 < asked <= 60


@pytest.mark.parametrize("own", [http_date(0), None, "yesterday"])
def test_a_past_date_asks_for_no_wait(own: str | None) -> None:
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT", own) == 0


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XYZ-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("zone", ["GMT", "+0000", "-0000", "UTC"])
@pytest.mark.usefixtures("far_from_greenwich")
def test_a_date_without_a_zone_is_universal_time_wherever_we_are(zone: str) -> None:
    assert retry_after_seconds(f"Wed, 21 Oct 2015 07:28:00 {zone}", "Wed, 21 Oct 2015 07:27:30 GMT") == 30
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT", f"Wed, 21 Oct 2015 07:27:30 {zone}") == 30


def test_a_date_in_another_zone_is_converted() -> None:
    assert retry_after_seconds("Wed, 21 Oct 2015 09:28:00 +0200", "Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 -0200", "Wed, 21 Oct 2015 07:28:00 GMT") == 7200


numbers = st.integers(-(10**12), 10**12).map(str)
near_dates = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Wed", "", "X"]),
    numbers,
    st.sampled_from(["Oct", "Feb", "oct", "13", ""]),
    numbers,
    numbers,
    numbers,
    numbers,
    st.sampled_from(["GMT", "-0000", "+9999", "EST", "", "+", "-9999999999"]),
)
headers = st.none() | st.text() | st.text("0123456789 :,+-GMTOct\x00²") | numbers | near_dates


@given(headers, headers)
@example("Mon, 01 Jan 0001 00:00:00 +2359", "Fri, 31 Dec 9999 23:59:59 -2359")
@example("Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 01 Jan 0001 00:00:00 +2359")
def test_whatever_the_headers_say_the_wait_is_finite_and_not_negative(value: str | None, date: str | None) -> None:
    asked = retry_after_seconds(value, date)
    assert asked is None or (asked >= 0 and math.isfinite(asked))
    assert 0 <= RetryPolicy().wait_seconds(1, asked) <= 121
