"""A simulated CockroachDB cluster that speaks the documented Cluster API v2 over HTTP (extra `sandbox`).

For trying, testing and benchmarking without a cluster. It shares no code with the exporter but the errors,
so that a mistake in one does not hide in the other.

    objects.py      databases, tables, columns, indexes and grants, as plain values
    templates.py    what the simulated tables look like, as data
    details.py      one table's columns, indexes and grants
    world.py        databases and tables of any number, computed when asked for
    answers.py      what the API says of them
    faults.py       which requests go wrong, and how
    app.py          sessions and routes, as an ASGI application
    server.py       the application on a port
"""
