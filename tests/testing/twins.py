"""A twin for every check: a sink with one defect, which that check must find and no other.

Where a defect necessarily breaks more than one check, `breaks` names them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from crdbexport.testing import SinkConformance
from tests.testing.good_sinks import GoodConformance, GoodSink, PartitionedConformance, UpsertConformance
from tests.testing.inexact_sinks import (
    Boasts,
    CountsIn16Bits,
    CountsInFloats,
    CountsMilliseconds,
    CutsLongTexts,
    DropsNul,
    HoldsSixteenBitsOfRows,
    KnowsABatchByItsNumber,
    KnowsTheFieldsOfToday,
    LooksAtTheFirstRow,
    NormalisesUnicode,
    TakesEmptyForNull,
    TakesNullForZero,
    WantsDatabases,
    WantsOrder,
)
from tests.testing.rude_sinks import (
    ChangesTheEnvironment,
    CommitsWhatItHasWhenCutOff,
    LeavesAFileOpen,
    LeavesATemporaryFile,
    LeavesAThread,
    LogsItsToken,
    Prints,
    ProbesVisibly,
    PublishesItsEnvironment,
    RaisesItsToken,
    ShowsItsToken,
    SilencesWarnings,
    TakesAnyType,
    TakesAnyValue,
    TakesUnknownOptions,
    TellsItsMaker,
    TellsItsTokenInTheReceipt,
    WantsTheMainThread,
)
from tests.testing.stuck_sinks import (
    AbortsOnce,
    AbortsOnlyWhatIsOpen,
    FillsAQueue,
    KeepsWhatItHasWhenStopped,
    LeavesItsLock,
    LosesPatience,
    NeedsARecord,
    WaitsForMore,
)
from tests.testing.unsafe_sinks import (
    CleansUpTooMuch,
    CommitsInAbort,
    DeletesWhatItDidNotLookFor,
    DropsWhatIsTooLong,
    FilesByTheDayOfReading,
    FlattensNames,
    FollowsNamesOutOfItsDirectory,
    HasOneCurrentRun,
    KeepsAPartRatherThanNothing,
    KeepsHalfABatch,
    KeepsRunsThatHadMore,
    KeepsTwoDays,
    PublishesInTwoParts,
    RemembersWhatItCommitted,
    RemovesBeforeItPublishes,
    SetsAsideWhatIsUnsure,
    ShowsWhatIsWritten,
    SwallowsDiskErrors,
    TakesAPrefixForTheCluster,
    TakesAWholeRunForOneBeingCommitted,
    TakesTheDeadForStrangers,
    TrustsALockOfTheDead,
)


@dataclass(frozen=True)
class Twin:
    """A defective sink, and the checks that must find it."""

    sink: type[GoodSink]
    breaks: tuple[str, ...]
    conformance: type[GoodConformance] = GoodConformance
    patience_seconds: float = 30.0
    crash_points: int = 12

    def kit(self) -> SinkConformance:
        facts = {name: getattr(self, name) for name in ("sink", "patience_seconds", "crash_points")}
        kit: SinkConformance = type(self.sink.__name__, (self.conformance,), facts)()
        return kit


def _of(sink: type[GoodSink], *breaks: str, **facts: Any) -> Twin:
    return Twin(sink, breaks, **facts)


_hurried = partial(_of, patience_seconds=0.7)

TWINS: tuple[Twin, ...] = (
    # What is visible before the commit is visible after a crash before it, too.
    _of(ShowsWhatIsWritten, "nothing_before_commit", "crash_before_commit"),
    _of(KeepsAPartRatherThanNothing, "abort_leaves_nothing"),
    _of(CleansUpTooMuch, "abort_keeps_what_is_published"),
    _of(CommitsInAbort, "failed_commit_leaves_nothing"),
    _of(RemembersWhatItCommitted, "same_run_twice"),
    _of(SetsAsideWhatIsUnsure, "lost_acknowledgement"),
    _of(TrustsALockOfTheDead, "crash_while_writing"),
    _of(TakesAWholeRunForOneBeingCommitted, "crash_before_commit"),
    _of(PublishesInTwoParts, "crash_in_commit"),
    _of(RemovesBeforeItPublishes, "crash_while_replacing"),
    # A crash after the new run is in place, and before the replaced one is gone, is one after the commit.
    _of(TakesTheDeadForStrangers, "crash_after_commit", "crash_while_replacing"),
    _of(SwallowsDiskErrors, "disk_full"),
    _of(TellsItsMaker, "without_a_network"),
    _of(KeepsHalfABatch, "partial_batch"),
    _of(DropsWhatIsTooLong, "poison_record"),
    _of(HasOneCurrentRun, "side_by_side"),
    _of(KeepsRunsThatHadMore, "later_run_of_the_snapshot"),
    _of(KeepsTwoDays, "other_snapshots"),
    _of(FilesByTheDayOfReading, "a_day_by_itself", conformance=PartitionedConformance),
    _of(TakesAPrefixForTheCluster, "other_clusters"),
    _of(DeletesWhatItDidNotLookFor, "uncovered_records_stay", conformance=UpsertConformance),
    _of(FollowsNamesOutOfItsDirectory, "free_text_names"),
    _of(FlattensNames, "names_do_not_collide"),
    _of(WaitsForMore, "one_record_arrives"),
    _of(NeedsARecord, "empty_run"),
    _hurried(FillsAQueue, "many_batches"),
    _of(LosesPatience, "slow_batches"),
    _of(KeepsWhatItHasWhenStopped, "stops_when_told"),
    _of(AbortsOnlyWhatIsOpen, "abort_before_open"),
    _of(AbortsOnce, "abort_twice"),
    _of(LeavesItsLock, "begins_again_after_abort"),
    _of(CountsIn16Bits, "every_stream"),
    _of(TakesNullForZero, "nulls"),
    _of(CountsInFloats, "integers"),
    _of(TakesEmptyForNull, "lists"),
    _of(NormalisesUnicode, "unicode_texts"),
    _of(DropsNul, "nul_in_a_text"),
    _of(CutsLongTexts, "large_values"),
    _of(CountsMilliseconds, "microseconds"),
    _of(LooksAtTheFirstRow, "streams_without_rows"),
    _of(WantsDatabases, "some_streams"),
    _of(HoldsSixteenBitsOfRows, "many_rows"),
    _of(KnowsTheFieldsOfToday, "added_field"),
    _of(WantsOrder, "any_order"),
    _of(KnowsABatchByItsNumber, "parts_of_a_batch"),
    _of(Boasts, "receipt_is_true"),
    _of(PublishesItsEnvironment, "no_secret_in_what_is_published"),
    _of(LogsItsToken, "no_secret_in_logs"),
    _of(RaisesItsToken, "no_secret_in_errors"),
    _of(ShowsItsToken, "no_secret_in_repr"),
    _of(TellsItsTokenInTheReceipt, "no_secret_in_the_receipt"),
    _of(CommitsWhatItHasWhenCutOff, "slow_write_is_cut_off"),
    _of(WantsTheMainThread, "works_on_another_thread"),
    _of(ProbesVisibly, "preflight_publishes_nothing"),
    _of(TakesUnknownOptions, "unknown_option_is_refused"),
    _of(TakesAnyType, "wrong_type_is_refused"),
    _of(TakesAnyValue, "wrong_options_are_refused"),
    _of(Prints, "prints_nothing"),
    _of(ChangesTheEnvironment, "leaves_the_process_alone"),
    _of(SilencesWarnings, "leaves_logging_alone"),
    _hurried(LeavesAThread, "leaves_no_threads"),
    _hurried(LeavesAFileOpen, "leaves_no_open_files"),
    _of(LeavesATemporaryFile, "leaves_no_temporary_files"),
)
