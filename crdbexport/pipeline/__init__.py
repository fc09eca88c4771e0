"""Everything that knows neither CockroachDB nor a format: batches, transforms, spool, lanes, accounting."""
