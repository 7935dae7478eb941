"""Links between files of the repository become links between files of the site."""

import pytest

from tools.site_hook import in_site, repository_path, site_path, targets


@pytest.mark.parametrize(
    ("page", "link", "there"),
    [
        ("docs/quickstart.md", "tls.md", "tls.md"),
        ("docs/quickstart.md", "signals.md#exit-codes", "signals.md#exit-codes"),
        ("docs/performance.md", "../README.md#performance", "index.md#performance"),
        ("docs/performance.md", "../benchmarks/README.md", "benchmarks/README.md"),
        ("docs/deployment/systemd.md", "../../systemd/README.md", "../systemd/README.md"),
        ("docs/deployment/systemd.md", "../settings.md", "../settings.md"),
        ("README.md", "docs/images/bad-deploy.svg", "images/bad-deploy.svg"),
        ("README.md", "docs/deployment/README.md", "deployment/README.md"),
        ("README.md", "systemd/", "systemd/README.md"),
        ("systemd/README.md", "../docs/deployment/systemd.md", "../deployment/systemd.md"),
    ],
)
def test_a_link_leads_to_the_same_file_in_the_site(page: str, link: str, there: str) -> None:
    assert in_site(page, f"see [it]({link}).") == f"see [it]({there})."


@pytest.mark.parametrize(
    "link", ["https://example.com/README.md", "#exit-codes", "nowhere.md", "../../../etc/passwd"]
)
def test_a_link_that_leads_to_no_file_of_the_repository_stays(link: str) -> None:
    assert in_site("docs/quickstart.md", f"[it]({link})") == f"[it]({link})"
    assert list(targets("docs/quickstart.md", f"[it]({link})")) == []


def test_a_page_of_the_site_is_found_in_the_repository() -> None:
    for path in (
        "README.md",
        "CHANGELOG.md",
        "benchmarks/README.md",
        "docs/tls.md",
        "docs/deployment/tls.md",
    ):
        assert repository_path(site_path(path)) == path
