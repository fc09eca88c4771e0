"""What the database is, what its user may do there, and what its schema holds."""

from __future__ import annotations

from dataclasses import dataclass

from crdbexport import ConfigError, SinkRefusedError
from crdbexport.errors import shown
from crdbexport_postgres.session import Session

_DATABASE = """
SELECT pg_is_in_recovery() AS standby, current_setting('transaction_read_only') = 'on' AS read_only,
       current_setting('server_encoding') AS encoding,
       has_database_privilege(current_database(), 'CREATE') AS may_create_schemas,
       has_database_privilege(current_database(), 'TEMPORARY') AS may_stage,
       n.oid IS NOT NULL AS schema_exists,
       coalesce(has_schema_privilege(n.oid, 'CREATE'), false) AS may_create_tables,
       coalesce(has_schema_privilege(n.oid, 'USAGE'), false) AS may_use_schema
  FROM (SELECT) AS one LEFT JOIN pg_namespace AS n ON n.nspname = $1
"""
_TABLES = """
SELECT c.relname::text AS name, c.relkind IN ('r', 'p') AS is_table, pg_has_role(c.relowner, 'USAGE') AS is_owner,
       has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
         AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE') AS may_write,
       EXISTS (SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
                WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
                  AND i.indnkeyatts = 1 AND a.attname = 'record_id') AS is_keyed
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_COLUMNS = """
SELECT c.relname::text AS table_name, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull AS not_null, a.atthasdef OR a.attidentity <> '' AS has_default
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
"""


@dataclass(frozen=True)
class Database:
    """The database as its user sees it; what is said of the schema is false where it does not exist."""

    standby: bool
    read_only: bool
    encoding: str
    may_create_schemas: bool
    may_stage: bool
    schema_exists: bool
    may_create_tables: bool
    may_use_schema: bool


@dataclass(frozen=True)
class Column:
    """A column of a table, with its type in PostgreSQL's own spelling."""

    type: str
    not_null: bool
    has_default: bool


@dataclass(frozen=True)
class Relation:
    """A table, or what else has the name of one, in the schema. `is_keyed`: `record_id` is unique by an index."""

    is_table: bool
    is_owner: bool
    may_write: bool
    is_keyed: bool
    columns: dict[str, Column]


def database(session: Session, schema: str) -> Database:
    """The facts about the database and the schema."""
    [facts] = session.rows(_DATABASE, schema)
    return Database(**facts)


def relations(session: Session, schema: str) -> dict[str, Relation]:
    """What the schema holds, by name."""
    columns: dict[str, dict[str, Column]] = {}
    for row in session.rows(_COLUMNS, schema):
        table, name = row.pop("table_name"), row.pop("name")
        columns.setdefault(table, {})[name] = Column(**row)
    held = {row.pop("name"): row for row in session.rows(_TABLES, schema)}
    return {name: Relation(**facts, columns=columns.get(name, {})) for name, facts in held.items()}


def refuse_unfit(session: Session, found: Database, schema: str, *, lacks_tables: bool) -> None:
    """Refuse a database to which this user cannot publish; `lacks_tables` where the schema has none for some stream."""
    if found.encoding != "UTF8":
        raise ConfigError(f"{session.where}: the database has the encoding {found.encoding}; name one that has UTF8")
    if found.standby or found.read_only:
        what = "is a standby" if found.standby else "lets this user read only"
        raise SinkRefusedError(
            f"{session.where}: the server {what}; name one that takes writes, for instance with "
            "target_session_attrs=read-write"
        )
    if lacking := _lacking(found, schema, lacks_tables):
        raise SinkRefusedError(f"{session.where}: the user lacks the privilege {lacking}; grant it")


def _lacking(found: Database, schema: str, lacks_tables: bool) -> str | None:
    if not found.may_stage:
        return "TEMPORARY on the database"
    if not found.schema_exists:
        return None if found.may_create_schemas else f"CREATE on the database, which has no schema {shown(schema)} yet"
    if not found.may_use_schema:
        return f"USAGE on schema {shown(schema)}"
    return f"CREATE on schema {shown(schema)}" if lacks_tables and not found.may_create_tables else None
