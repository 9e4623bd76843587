"""Every service is described: a page of its own, a section of the protocol, a line of the README."""

import re
from pathlib import Path

import pytest

from schemas.services import WORK_TYPES, service_of

ROOT = Path(__file__).parents[2]
SERVICES = [service_of(record) for record in WORK_TYPES]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_a_page(service: str) -> None:
    """The page begins with the name, shows how to submit the work, and tells unit, check and hardware, or that there is
    no check."""
    page = (ROOT / "docs" / "services" / f"{service}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {service}\n")
    assert f"    assay job submit {service} " in page
    sections = re.findall(r"^## (.+)$", page, re.MULTILINE)
    if "**its result is not verified**" not in page:
        assert {"Parameters", "Unit and price", "Verification", "Hardware"} <= set(sections)


def test_no_page_is_left_over() -> None:
    """Each page is that of a service."""
    assert sorted(path.stem for path in (ROOT / "docs" / "services").glob("*.md")) == sorted(SERVICES)


def test_the_protocol_has_a_section_for_each_service() -> None:
    """In whatever order, and no more."""
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^## The service `(.+)`$", text, re.MULTILINE)) == sorted(SERVICES)


def test_the_readme_lists_the_services() -> None:
    """Each with a link to its page and an example."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(.+?)`\]\(docs/services/(.+?)\.md\) \| .+ \| (.+) \|$", text, re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == sorted(SERVICES)
    assert all(name == page for name, page, _ in rows)
    assert [name for name, _, example in rows if not example.startswith((f"`{name} ", "see its page"))] == []
