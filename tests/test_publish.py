"""What publishing needs: the repository's address from one place, one list of dependencies, headline and workflows."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

import noxfile
from studies import claims

HOUSE = Path(__file__).parents[1]
ADDRESS = "https://github.com/someone/rgz"
LOCATE = noxfile.LOCATE


class Session:
    def log(self, _text):
        pass


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """The files that tell of the address, copied, and nox running in them."""
    shutil.copy(HOUSE / "_config.yml", tmp_path)
    shutil.copy(HOUSE / "README.md", tmp_path)
    project = (HOUSE / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(re.sub(r"(?m)^Repository = .*\n", "", project))
    shutil.copytree(HOUSE / "notebooks", tmp_path / "notebooks")
    monkeypatch.setattr(noxfile, "HERE", tmp_path)
    monkeypatch.setattr(noxfile, "BIN", Path(sys.executable).parent)
    monkeypatch.setattr(noxfile, "LOCATE", "")  # which takes a second
    monkeypatch.delenv("RGZ_REPOSITORY", raising=False)
    noxfile.links.func(Session())  # removes what may have been written
    return tmp_path


def config():
    return yaml.safe_load(noxfile._config(noxfile._address()))


def test_the_address_gives_buttons_and_without_it_there_are_none(clone, monkeypatch):
    assert "repository" not in config()
    assert config()["html"]["use_repository_button"] is False
    monkeypatch.setenv("RGZ_REPOSITORY", ADDRESS + ".git")
    found = config()
    assert found["repository"]["url"] == ADDRESS
    assert found["html"]["use_edit_page_button"] is True
    assert "binderhub_url" in found["launch_buttons"]
    assert "colab_url" not in found["launch_buttons"]  # the notebooks do not install themselves yet
    noxfile.links.func(Session())
    assert "colab_url" in config()["launch_buttons"]


def test_the_address_of_pyproject_is_enough(clone):
    project = clone / "pyproject.toml"
    project.write_text(project.read_text().replace("[project.urls]\n", f'[project.urls]\nRepository = "{ADDRESS}"\n'))
    assert config()["repository"]["url"] == ADDRESS


def test_the_cell_for_colab_is_written_once_and_removed(clone, monkeypatch):
    before = {path.name: path.read_text() for path in (clone / "notebooks").glob("*.ipynb")}
    monkeypatch.setenv("RGZ_REPOSITORY", ADDRESS)
    for _ in range(2):
        noxfile.links.func(Session())
        for path in (clone / "notebooks").glob("*.ipynb"):
            notebook = nbformat.read(path, as_version=4)
            nbformat.validate(notebook)
            assert [place for place, cell in enumerate(notebook.cells) if ADDRESS in cell.source] == [1]
            assert max(map(len, notebook.cells[1].source.splitlines())) <= 100
    monkeypatch.delenv("RGZ_REPOSITORY")
    noxfile.links.func(Session())
    assert {path.name: path.read_text() for path in (clone / "notebooks").glob("*.ipynb")} == before


def test_badges_are_written_once_and_removed(clone, monkeypatch):
    readme = clone / "README.md"
    before = readme.read_text()
    assert "[![" not in before
    monkeypatch.setenv("RGZ_REPOSITORY", ADDRESS)
    for _ in range(2):
        noxfile.links.func(Session())
        badges = readme.read_text().split("\n\n")[1].splitlines()
        assert len(badges) == 3
        assert all("someone/rgz" in badge for badge in badges)
    monkeypatch.delenv("RGZ_REPOSITORY")
    noxfile.links.func(Session())
    assert readme.read_text() == before


def test_numbers_of_a_run_go_into_its_prose(tmp_path):
    hidden = "application/papermill.record/"  # as glue has it with display=False
    glued = [
        nbformat.v4.new_output("display_data", {f"{hidden}text/plain": value}, metadata={"scrapbook": {"name": name}})
        for name, value in {"accuracy": "0.87654", "lead": "-0.0123", "n": "833"}.items()
    ]
    said = "0.9<!--accuracy:.3f--> of <!--n-->; (−0.5<!--lead:.2f-->)"
    cells = [nbformat.v4.new_markdown_cell(said), nbformat.v4.new_code_cell("", outputs=glued)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    for _ in range(2):
        noxfile._fill(tmp_path / "a.ipynb", tmp_path / "a.ipynb")
    prose = nbformat.read(tmp_path / "a.ipynb", as_version=4).cells[0].source
    assert prose == "0.877<!--accuracy:.3f--> of 833<!--n-->; (−0.01<!--lead:.2f-->)"


NOTEBOOKS = sorted((HOUSE / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_reads_without_the_book(path):
    prose = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    assert re.findall(r"\{[\w:-]+\}`|^:::|^```\{", prose, re.MULTILINE) == [], "Jupyter shows roles of the book as text"
    links = re.findall(r"\]\(([^)#]+)", prose)
    assert [one for one in links if ":" not in one and not (path.parent / one).is_file()] == []
    assert re.findall(r"(?<![\w.,−])<!--.*?-->", prose) == [], "numbers are missing: nox -s execute, nox -s numbers"


def test_missing_images_are_named_on_every_page(clone, monkeypatch):
    monkeypatch.setattr(noxfile, "LOCATE", LOCATE)
    monkeypatch.setenv("PYTHONPATH", str(HOUSE))
    monkeypatch.delenv("RGZ_DATA_MIRROR", raising=False)
    monkeypatch.setenv("RGZ_CACHE", str(clone / "nothing"))
    assert "images of MiraBest, FR-DEEP NVSS, FR-DEEP FIRST, Radio Galaxy Dataset" in config()["html"]["announcement"]


def test_binder_installs_the_one_list_of_dependencies():
    *_, pip = yaml.safe_load((HOUSE / "environment.yml").read_text())["dependencies"]
    named = [line for line in pip["pip"] if not line.startswith("--")]
    assert named == ["-c constraints.txt", "-e .[book]"]


@pytest.mark.parametrize("name", ["tests", "book", "release"])
def test_workflows_call_sessions_that_exist_and_pin_actions(name):
    workflow = (HOUSE / ".github" / "workflows" / f"{name}.yml").read_text()
    yaml.safe_load(workflow)
    assert all(hasattr(noxfile, session) for session in re.findall(r"nox -s (\w+)", workflow))
    used = re.findall(r"uses: (\S+)", workflow)
    assert [action for action in used if not re.search(r"@v\d+$|:\d+\.\d+\.\d+$", action)] == []


def test_the_headline_has_every_claim_with_its_baselines():
    command = [sys.executable, "-m", "studies.claims"]
    printed = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=True).stdout
    assert printed.count("claim of the paper") == len(claims.claims()) == 6
    assert len(printed.splitlines()) < 40
    assert "nan" not in printed.lower()
    assert claims.claims().iloc[1]["ours"].count("±") == len(claims.FLOORS)


def test_a_winner_has_an_interval_without_zero():
    table = claims.comparisons()
    paired = table[table["difference (95 % interval)"].str.contains("(", regex=False)]
    assert len(paired) > 12
    for text, ahead in zip(paired["difference (95 % interval)"], paired["significantly better"], strict=True):
        _, low, high = map(float, re.findall(r"-?[\d.]+", text.replace("−", "-")))
        assert (ahead == "neither") == (low < 0 < high) or 0 in (low, high)


def test_every_results_file_has_a_record():
    files = {path.name for path in claims.FOLDER.glob("*.csv")}
    assert set(claims.record()["file"]) == files
