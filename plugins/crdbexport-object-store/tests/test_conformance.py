"""The sink passes crdbexport's own kit, in a directory and in a bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from crdbexport_object_store.conformance import ObjectStoreConformance
from crdbexport_object_store.options import ObjectStoreConfig

from crdbexport.config import Secret

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.proof  # The other way runs in each build.
class TestDirectory(ObjectStoreConformance):
    pass


@pytest.mark.proof  # The other way runs in each build.
class TestJsonLines(ObjectStoreConformance):
    def config(self, place: Path) -> ObjectStoreConfig:
        return ObjectStoreConfig(url=f"file://{place}/lake", format="jsonl", compression="gzip")


class TestBucket(ObjectStoreConformance):
    """A place is a bucket of an S3 server."""

    wrong_options: ClassVar[dict[str, Any]] = {**ObjectStoreConformance.wrong_options, "endpoint": "http://127.0.0.1:9"}
    not_applicable: ClassVar[Mapping[str, str]] = {}
    buckets: ClassVar[dict[Path, Any]] = {}

    @pytest.fixture(autouse=True)
    def _server(self, new_bucket: Callable[[], Any]) -> None:
        type(self).new_bucket = staticmethod(new_bucket)

    @contextmanager
    def serve(self, place: Path) -> Iterator[None]:
        self.buckets[place] = self.new_bucket()
        yield

    def config(self, place: Path) -> ObjectStoreConfig:
        config: ObjectStoreConfig = self.buckets[place].config(
            part_bytes=65_536, secret_access_key=Secret(self.canary), store={"session_token": Secret(self.canary)}
        )
        return config

    def objects(self, place: Path) -> Mapping[str, bytes]:
        found: Mapping[str, bytes] = self.buckets[place].objects()
        return found
