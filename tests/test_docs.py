"""The generated pages of docs/ are up to date, and the links of all pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ostler.settings.declarations import declarations, flag, variables
from ostler.supervisor.fleet.slot import TABLE
from ostler.system.signals import arbiter_table
from tools import generate_docs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", list(generate_docs.PAGES))
def test_a_generated_page_is_up_to_date_or_else_run_make_docs(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == generate_docs.PAGES[name]()


def test_every_setting_has_a_row_with_its_flag_its_variables_and_its_key() -> None:
    page = generate_docs.settings_page()

    for name in declarations():
        row = next(line for line in page.splitlines() if f"| `{name}` |" in line)
        assert all(f"`{variable}`" in row for variable in variables(name))
        assert row.startswith("| `APP`" if name == "app" else f"| `{flag(name)}")


def test_a_bar_in_a_cell_does_not_break_a_table() -> None:
    tables = [line for line in generate_docs.settings_page().splitlines() if line.startswith("|")]

    columns = [line.replace(r"\|", "").count("|") for line in tables]

    assert set(columns) == {6, 4}


def test_the_table_of_signals_in_the_readme_is_up_to_date() -> None:
    assert arbiter_table() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_stale_page_fails_the_check_and_is_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in generate_docs.PAGES:
        (tmp_path / name).write_text("old")
    life = next(iter(generate_docs.BLOCKS["architecture.md"]))
    begin, end = f"<!-- {life}, written by `make docs` -->", f"<!-- end of {life} -->"
    (tmp_path / "architecture.md").write_text(f"# Mine\n{begin}\nold\n{end}\nmine\n")

    assert generate_docs.main(["--check", str(tmp_path)]) == 1
    assert "is stale: run `make docs`" in capsys.readouterr().err
    assert generate_docs.main([str(tmp_path)]) == 0
    assert generate_docs.main(["--check", str(tmp_path)]) == 0
    written = (tmp_path / "architecture.md").read_text()
    assert written == f"# Mine\n{begin}\n{generate_docs.life_diagram()}\n{end}\nmine\n"


def test_a_missing_page_is_stale(tmp_path: Path) -> None:
    for name in generate_docs.BLOCKS:
        (tmp_path / name).write_text((DOCS / name).read_text(encoding="utf-8"), encoding="utf-8")
    assert generate_docs.stale(tmp_path) == list(generate_docs.PAGES)


PAGES = [
    *ROOT.glob("*.md"),
    ROOT / "systemd" / "README.md",
    ROOT / "benchmarks" / "README.md",
    *DOCS.rglob("*.md"),
]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes from the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} is not there"
        if anchor:
            assert anchor in anchors(target), f"{link}: there is no such heading"


@pytest.mark.parametrize(
    ("index", "folder"),
    [(ROOT / "README.md", DOCS), (DOCS / "deployment" / "README.md", DOCS / "deployment")],
)
def test_every_page_of_a_folder_is_in_its_index(index: Path, folder: Path) -> None:
    text = index.read_text(encoding="utf-8")
    pages = {page.name for page in folder.glob("*.md")} - {"README.md"}
    assert {name for name in pages if f"{name})" not in text} == set()


def test_a_page_without_the_marks_of_its_generated_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "architecture.md").write_text("# Architecture\n")
    with pytest.raises(ValueError, match="no marks for 'the life of a slot'"):
        generate_docs.stale(tmp_path)


def test_the_diagram_has_every_transition_of_the_table() -> None:
    drawn = generate_docs.life_diagram()
    for (state, event), row in TABLE.items():
        for following in set(row.next) - {state}:
            [line] = [x for x in drawn.splitlines() if f" {state.name} --> {following.name}: " in x]
            assert event.__name__ in line.partition(": ")[2].split(", ")
    assert generate_docs.life_diagram() in (DOCS / "architecture.md").read_text(encoding="utf-8")


def test_every_file_that_the_architecture_names_is_there() -> None:
    named = set(re.findall(r"`([\w/]+/\w+\.py)`", (DOCS / "architecture.md").read_text(encoding="utf-8")))
    assert len(named) > 40
    assert {
        name for name in named if not any((ROOT / top / name).exists() for top in ("", "ostler"))
    } == set()
