"""The built-in sinks pass the kit that strangers use for theirs."""

from __future__ import annotations

import pytest

from crdbexport.testing.builtin import JsonLinesConformance, ParquetConformance, WebhookConformance

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class TestParquet(ParquetConformance):
    pass


class TestJsonLines(JsonLinesConformance):
    pass


class TestWebhook(WebhookConformance):
    pass
