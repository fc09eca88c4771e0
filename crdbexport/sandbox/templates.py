"""What the simulated databases hold, as data: table layouts, optional columns, schemas, roles."""

from __future__ import annotations

from dataclasses import dataclass

from crdbexport.sandbox.objects import Column, Grant


@dataclass(frozen=True)
class TableTemplate:
    """A table's usual columns; the first `key_length` of them are its primary key."""

    name: str
    columns: tuple[Column, ...]
    key_length: int


def _columns(layout: str) -> tuple[Column, ...]:
    """Columns from `name TYPE, name TYPE!`; the mark says NOT NULL."""
    pairs = [item.split(" ", 1) for item in layout.split(", ")]
    return tuple(Column(name, kind.removesuffix("!"), not kind.endswith("!")) for name, kind in pairs)


def _table(name: str, layout: str, key_length: int = 1) -> TableTemplate:
    return TableTemplate(name, _columns(layout), key_length)


KINDS = {
    "movr": (
        _table("users", "city STRING!, id UUID!, name STRING, address STRING, credit_card STRING", 2),
        _table(
            "vehicles",
            "city STRING!, id UUID!, type STRING, owner_id UUID, creation_time TIMESTAMP, status STRING, "
            "current_location STRING, ext JSONB",
            2,
        ),
        _table(
            "rides",
            "city STRING!, id UUID!, vehicle_city STRING, rider_id UUID, vehicle_id UUID, "
            "start_address STRING, end_address STRING, start_time TIMESTAMP, end_time TIMESTAMP, "
            "revenue DECIMAL(10,2)",
            2,
        ),
        _table(
            "vehicle_location_histories",
            "city STRING!, ride_id UUID!, timestamp TIMESTAMP!, lat FLOAT8, long FLOAT8",
            3,
        ),
        _table(
            "promo_codes",
            "code STRING!, description STRING, creation_time TIMESTAMP, expiration_time TIMESTAMP, rules JSONB",
        ),
        _table(
            "user_promo_codes",
            "city STRING!, user_id UUID!, code STRING!, timestamp TIMESTAMP, usage_count INT8",
            3,
        ),
    ),
    "bank": (
        _table("accounts", "id INT8!, customer_id UUID!, iban STRING!, currency CHAR(3)!, balance DECIMAL(19,4)!"),
        _table(
            "transactions",
            "id UUID!, account_id INT8!, booked_at TIMESTAMPTZ!, amount DECIMAL(19,4)!, kind STRING!, reference STRING",
        ),
        _table("customers", "id UUID!, full_name STRING!, email STRING!, born_on DATE, phone_numbers STRING[]"),
        _table(
            "transfers",
            "id UUID!, from_account INT8!, to_account INT8!, amount DECIMAL(19,4)!, requested_at TIMESTAMPTZ!",
        ),
        _table("branches", "id INT8!, name STRING!, opens_at TIME, location GEOGRAPHY(POINT,4326)"),
        _table("cards", "id UUID!, account_id INT8!, pan_hash BYTES!, expires_on DATE!, is_blocked BOOL!"),
        _table("rates", "currency CHAR(3)!, valid_on DATE!, rate DECIMAL!", 2),
    ),
    "shop": (
        _table(
            "orders",
            "id UUID!, customer_id UUID!, placed_at TIMESTAMPTZ!, status STRING!, total DECIMAL(10,2)!",
        ),
        _table(
            "order_items",
            "order_id UUID!, line INT4!, product_id INT8!, quantity INT4!, price DECIMAL(10,2)!",
            2,
        ),
        _table(
            "products",
            "id INT8!, sku STRING!, title STRING!, price DECIMAL(10,2)!, attributes JSONB, images BYTES[]",
        ),
        _table("carts", "id UUID!, session_token BYTES!, updated_at TIMESTAMPTZ!, contents JSONB"),
        _table("reviews", "id UUID!, product_id INT8!, stars INT2!, body STRING, is_public BOOL!"),
        _table("warehouses", "code STRING!, address STRING!, location GEOGRAPHY(POINT,4326), capacity INT8"),
        _table("stock", "warehouse STRING!, product_id INT8!, quantity INT8!", 2),
        _table("coupons", "code STRING!, discount DECIMAL(5,2)!, valid_for INTERVAL, used INT8!"),
    ),
}

SYSTEM_TABLES = {
    # The descriptor ids are those of a real cluster.
    3: _table("descriptor", "id INT8!, descriptor BYTES"),
    4: _table("users", "username STRING!, hashedPassword BYTES, isRole BOOL!, user_id OID!"),
    5: _table("zones", "id INT8!, config BYTES"),
    6: _table("settings", "name STRING!, value STRING!, lastUpdated TIMESTAMP!, valueType STRING"),
    12: _table("eventlog", "timestamp TIMESTAMP!, uniqueID BYTES!, eventType STRING!, info STRING", 2),
    15: _table("jobs", "id INT8!, status STRING!, created TIMESTAMP!, num_runs INT8, last_run TIMESTAMP"),
    23: _table("role_members", "role STRING!, member STRING!, isAdmin BOOL!", 2),
    30: _table("namespace", "parentID INT8!, parentSchemaID INT8!, name STRING!, id INT8", 3),
}

OPTIONAL_COLUMNS = _columns(
    "created_at TIMESTAMPTZ!, updated_at TIMESTAMPTZ, deleted_at TIMESTAMPTZ, version INT8!, metadata JSONB, "
    "tags STRING[], is_active BOOL!, score FLOAT8, payload BYTES, tenant UUID!, ip_address INET, "
    "effective_on DATE, notes VARCHAR(255), flags BIT(8), retries INT2, fee DECIMAL(10,2), external_id UUID, "
    "source STRING, duration INTERVAL, embedding VECTOR(384)"
)
UNINDEXED_TYPES = ("JSONB", "STRING[]", "BYTES[]", "GEOGRAPHY", "VECTOR")

# Weighted by repetition: most tables live in public.
SCHEMAS = ("public", "public", "public", "audit", "reporting")

# Roles that some objects know and others do not.
DATABASE_ROLES = (
    Grant("analyst", ("CONNECT",)),
    Grant("auditor", ("BACKUP", "CONNECT")),
    Grant("etl", ("CONNECT", "CREATE")),
)
TABLE_ROLES = (
    Grant("analyst", ("SELECT",)),
    Grant("auditor", ("SELECT",)),
    Grant("etl", ("INSERT", "SELECT", "UPDATE")),
)
