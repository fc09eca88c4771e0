"""A receiver of webhooks that costs its sender next to nothing: it counts records, and tells the count when asked."""

from __future__ import annotations

import asyncio
import re
import sys

HEAD_END = b"\r\n\r\n"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
RECORD = b'"record_id":'
TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"


class Receiver:
    """What came so far."""

    def __init__(self) -> None:
        self.records = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, until it hangs up."""
        try:
            while True:
                head = await reader.readuntil(HEAD_END)
                length = LENGTH.search(head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                self.records += body.count(RECORD)
                writer.write(TAKEN if head.startswith(b"POST") else self._told())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _told(self) -> bytes:
        text = b"%d" % self.records
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)


async def main() -> None:
    """Tell the address, and serve until the process is ended."""
    server = await asyncio.start_server(Receiver().serve, "127.0.0.1", 0)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook\n")
    sys.stdout.flush()
    await server.serve_forever()
