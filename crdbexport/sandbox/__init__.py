"""A simulated CockroachDB cluster that speaks the Cluster API v2 over HTTP (extra `sandbox`).

For trying, testing and benchmarking without a cluster. It shares no code with the exporter but the errors,
so that a mistake in one does not hide in the other.

    objects.py      databases, tables, columns, indexes and grants, as plain values
    templates.py    what the simulated tables look like, as data
    hard_names.py   names that are hard to serve, as data
    details.py      one table's columns, indexes and grants
    layout.py       which objects there are: names and ids
    world.py        databases and tables of any number, computed when asked for
    faults.py       which requests go wrong, and how
    base.py         what both forms share: sessions, counters, latency, faults
    answers.py      what the documented form says of databases and tables
    app.py          the documented form, as an ASGI application
    native/         the form that real servers speak, with their quirks
    server.py       an application on a port
"""
