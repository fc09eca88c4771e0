"""The native form of the sandbox: it answers as the sources of real servers say that these do.

quirks.py       what an instance does that not every server does
app.py          the order of a server's checks, as an ASGI application
sessions.py     tokens, login and logout
routes.py       which paths there are, by generation
by_name.py      `databases/...`: lists of strings and details, asked by name
names.py        how names are quoted in lists and what SQL takes a requested name for
table_reply.py  one table's details on the wire
metadata.py     `database_metadata/`, `table_metadata/` and `grants/...`, asked by id
stats_job.py    the cache behind the metadata and the job that fills it
account.py      what the account may see
paging.py       both kinds of pages
replies.py      JSON, one-line errors, times
"""

from crdbexport.sandbox.native.app import NativeSandbox
from crdbexport.sandbox.native.quirks import Generation, Quirks

__all__ = ["Generation", "NativeSandbox", "Quirks"]
