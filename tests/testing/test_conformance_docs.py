"""docs/conformance.md lists every check; `python -m tests.testing.test_conformance_docs` writes it anew."""

from __future__ import annotations

from pathlib import Path

from crdbexport.testing.check import KINDS
from crdbexport.testing.runner import CHECKS

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
HEAD = """# What the conformance kit checks

`crdbexport.testing.SinkConformance` tries a sink with {count} checks, in five classes. Each is a test with pytest, and
a line of `crdbexport plugins conformance TYPE`. A check drives the sink through the same lane as an export, and judges
by what is read back. What does not apply is listed with its reason; `needs` names the capability that a check depends
on. For every check, the tests of the kit have a sink with a defect that this check finds.
"""


def page() -> str:
    parts = [HEAD.format(count=len(CHECKS))]
    for kind in KINDS:
        parts += [f"\n## {kind.capitalize()}\n\n| check | claim | needs |\n| --- | --- | --- |\n"]
        parts += [f"| `{each.name}` | {each.claim} | {each.needs} |\n" for each in CHECKS if each.kind == kind]
    return "".join(parts)


def test_the_page_is_what_the_kit_does() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_check_claims_something_in_a_sentence() -> None:
    for each in CHECKS:
        assert each.claim.endswith("."), each.name
        assert each.claim[0].isupper()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
