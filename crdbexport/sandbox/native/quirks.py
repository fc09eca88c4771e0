"""What one native sandbox does that not every real server does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Generation = Literal["v22", "v25"]
"""`v22` answers by name only, as v22.2 to v24.2 do; `v25` has the metadata endpoints of v24.3 and later too."""

NextOffset = Literal["honest", "stuck", "cycling"]


@dataclass(frozen=True)
class Quirks:
    """All off to begin with. Tables are named `database.schema.table`, without quotes.

    * `insecure`: every request is let through, and no login works.
    * `tenant`: a virtual cluster, where most routes answer 501, login among them.
    * `too_old`: v21.1, which knows no databases.
    * `https_only`: plain HTTP is redirected, but for `/health`.
    * `not_ready`: `health/?ready=true` answers 500.
    * `cold_cache`: the metadata cache has never been filled; `stats_age_seconds`: how old it is otherwise.
    * `job_seconds`: how long the job that fills it runs; `job_unclaimed`: no node takes it.
    * `failing_stats`: tables for which the job failed last time; their rows are a day older than the others.
    * `hidden_databases`, `hidden_tables`: on which the account holds no privilege; lists leave them out.
    * `without_connect`: databases that the metadata leaves out, for the account may not connect.
    * `without_zoneconfig`: the account may not read any table's details (500).
    * `offline_tables`: being imported or restored; their details answer 500.
    * `next_offset`: `stuck` never goes beyond the second page, `cycling` goes back there from the last one.
    * `unstable_ties`: tables of one name in several schemas change places from page to page.
    """

    insecure: bool = False
    tenant: bool = False
    too_old: bool = False
    https_only: bool = False
    not_ready: bool = False
    cold_cache: bool = False
    stats_age_seconds: float = 60.0
    job_seconds: float = 0.2
    job_unclaimed: bool = False
    failing_stats: Collection[str] = ()
    hidden_databases: Collection[str] = ()
    hidden_tables: Collection[str] = ()
    without_connect: Collection[str] = ()
    without_zoneconfig: bool = False
    offline_tables: Collection[str] = ()
    next_offset: NextOffset = "honest"
    unstable_ties: bool = False


NONE = Quirks()
