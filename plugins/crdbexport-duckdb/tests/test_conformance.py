"""The sink passes crdbexport's own kit."""

from __future__ import annotations

import pytest
from crdbexport_duckdb.conformance import DuckDBConformance

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class TestDuckDB(DuckDBConformance):
    pass
