"""`crdbexport streams`: the record schemas."""

from __future__ import annotations

import click

from crdbexport.records import STREAMS, Stream


@click.command("streams", short_help="Show the record schemas.")
@click.argument("stream", required=False, type=click.Choice(list(STREAMS)), metavar="[STREAM]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(stream: str | None, as_json: bool) -> None:
    """Show the record schemas: of one STREAM, or of all.

    Fields marked k are the key; n is filled by servers of the native form only, i on request alone (--include);
    ? may be null.
    """
    chosen = [STREAMS[stream]] if stream else list(STREAMS.values())
    if as_json:
        import msgspec

        document = msgspec.json.encode([_described(each) for each in chosen])
        click.echo(msgspec.json.format(document, indent=2).decode())
        return
    for each in chosen:
        click.echo(f"{each.name}: {each.description}")
        for field in each.fields:
            marks = "".join(
                mark
                for mark, holds in (
                    ("k", field.name in each.key),
                    ("n", field.native_only),
                    ("i", field.on_request),
                    ("?", field.nullable),
                )
                if holds
            )
            click.echo(f"  {field.name:<24} {field.type:<26} {marks}".rstrip())
        click.echo()


def _described(stream: Stream) -> dict[str, object]:
    return {
        "name": stream.name,
        "description": stream.description,
        "key": stream.key,
        "fields": [
            {
                "name": f.name,
                "type": f.type,
                "nullable": f.nullable,
                "native_only": f.native_only,
                "on_request": f.on_request,
            }
            for f in stream.fields
        ],
    }
