"""dlt's rest_api source into Parquet files, `python -m tests.benchmarks.dlt_rest_api URL DIR [--parallel]`.

Written as its documentation shows it for a list whose items have resources of their own: dependent resources, path
parameters that are resolved from their parents, and with `--parallel` the switch that fetches those side by side.
"""

from __future__ import annotations

import argparse
import json
import urllib.request
from pathlib import Path
from typing import Any

import dlt
from dlt.sources.rest_api import RESTAPIConfig, rest_api_source

from tests.benchmarks.workload import API

DATASET = "cluster"


def login(url: str) -> str:
    """A session, which the source then sends as a header."""
    request = urllib.request.Request(f"{url}{API}/login", data=b"username=demo&password=demo", method="POST")
    with urllib.request.urlopen(request) as reply:
        session: str = json.load(reply)["session"]
        return session


def resource(name: str, path: str, selector: str, parents: dict[str, tuple[str, str]], parallel: bool) -> Any:
    """A resource; `parents` says from which resource's field each parameter of the path comes."""
    params = {each: {"type": "resolve", "resource": of, "field": field} for each, (of, field) in parents.items()}
    described: dict[str, Any] = {
        "name": name,
        "endpoint": {"path": path, "params": params, "data_selector": selector, "paginator": "single_page"},
    }
    if parents:
        described |= {"include_from_parent": ["name"], "parallelized": parallel}
    return described


def configuration(url: str, session: str, *, parallel: bool) -> RESTAPIConfig:
    of_list = {"database": ("databases", "name")}
    of_tables = {"database": ("tables", "_databases_name"), "table": ("tables", "name")}
    one = "databases/{database}"
    return {
        "client": {"base_url": f"{url}{API}/", "headers": {"X-Cockroach-API-Session": session}},
        "resource_defaults": {"write_disposition": "append"},
        "resources": [
            resource("databases", "databases", "databases", {}, parallel),
            resource("database_details", one, "$", of_list, parallel),
            resource("database_grants", f"{one}/grants", "grants", of_list, parallel),
            resource("tables", f"{one}/tables", "tables", of_list, parallel),
            resource("table_details", f"{one}/tables/{{table}}", "$", of_tables, parallel),
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--parallel", action="store_true")
    given = parser.parse_args()
    source = rest_api_source(configuration(given.url, login(given.url), parallel=given.parallel), name="crdb")
    pipeline = dlt.pipeline(
        "crdb",
        pipelines_dir=str(given.directory / "pipelines"),
        destination=dlt.destinations.filesystem(bucket_url=str(given.directory)),
        dataset_name=DATASET,
    )
    pipeline.run(source, loader_file_format="parquet").raise_on_failed_jobs()


if __name__ == "__main__":
    main()
