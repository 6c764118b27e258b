"""The site is published by a workflow, and what links to it takes its address from one place."""

import re

import nbformat
import pytest
import yaml

from tools.build_course import ROOT, lessons, site_url
from tools.site.__main__ import WHERE


def test_the_workflow_publishes_what_make_site_builds():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "site.yml").read_text())["jobs"]
    build, deploy = jobs["build"]["steps"], jobs["deploy"]["steps"]
    assert {"run": "make site"} in build
    assert build[-1]["uses"].startswith("actions/upload-pages-artifact@")
    assert ROOT / build[-1]["with"]["path"] == WHERE / "html"
    assert deploy[-1]["uses"].startswith("actions/deploy-pages@")


def test_the_readme_links_to_the_site():
    assert f"]({site_url()})" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
@pytest.mark.parametrize("stem", [path.stem for path in lessons()])
def test_a_notebook_links_to_its_page(folder, stem):
    links = nbformat.read(ROOT / folder / f"{stem}.ipynb", as_version=4).cells[1].source
    assert f"]({site_url()}/notebooks/{stem}.html)" in links
    assert re.fullmatch(r"https://[\w.-]+(/[\w.-]+)*", site_url())
