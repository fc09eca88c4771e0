"""The sink passes crdbexport's own kit."""

from __future__ import annotations

import pytest
from crdbexport_postgres.conformance import PostgresConformance

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class TestPostgres(PostgresConformance):
    pass
