"""Everything that knows CockroachDB: session, dialects, extractor."""
