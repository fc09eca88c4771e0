"""The sink passes crdbexport's own kit."""

from __future__ import annotations

import pytest
from crdbexport_deltalake.conformance import DeltaLakeConformance, MergeConformance

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.proof  # The other way runs in each build.
class TestAppend(DeltaLakeConformance):
    pass


class TestMerge(MergeConformance):
    pass
