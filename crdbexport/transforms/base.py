"""What a transform author sees: a transform and its options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

if TYPE_CHECKING:
    import pyarrow as pa

    from crdbexport.sinks.base import Batch


class TransformConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of a transform; a transform declares its own in a nested class `Config`."""


class Transform:
    """Changes or drops rows of a batch before it is spooled.

    `apply` runs on one thread, for every batch in order, and returns a record batch of the same schema. It may drop
    rows and change values; it must not reorder or add rows, null a key, or touch the envelope. One that changes values
    of a key also defines `rename`. The pipeline checks all of this, and ends the run with the plugin's name where it
    does not hold. The record id is computed anew afterwards.
    """

    Config: ClassVar[type[TransformConfig]] = TransformConfig

    config: Any

    def __init__(self, config: TransformConfig) -> None:
        self.config = config

    def apply(self, batch: Batch) -> pa.RecordBatch:
        """The batch's rows as they shall be published."""
        raise TypeError(f"{type(self).__name__} must define apply(self, batch)")

    def secrets(self) -> Iterable[str]:
        """What must appear in no report, dead letter or log, whoever words it.

        Options are kept in the state of a run: let one name the environment variable that holds a secret.
        """
        return ()

    def rename(self, field: str, name: str) -> str:
        """What `name` becomes in the key field `field`: gaps are published under the same names as records."""
        return name
