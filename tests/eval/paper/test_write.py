"""The paper as it lies in its folder: complete, from the records alone, and repeatable."""

from __future__ import annotations

import html.parser
import json
import re
import shutil

import pytest

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.eval.paper import write_paper
from ed_interp.eval.paper.document import Value, key_of
from ed_interp.eval.paper.records import read_records, resolve, shown
from ed_interp.eval.paper.write import make_paper, render

SECTIONS = [
    "Implementation",
    "Results of the trials",
    "Discussion against benchmarks and baselines",
    "Limits",
    "References",
    "Appendix A. Configuration data",
    "Appendix B. Pointers to the code",
    "Appendix C. Fine-tuning protocols",
    "Appendix D. Trial results in tables and figures",
    "Appendix E. Log of challenges",
    "Appendix F. Ethics and bias",
]


class Reader(html.parser.HTMLParser):
    """What the page says: the text of ``main`` outside values, code and quotations; and values."""

    apart = ("data", "code", "q", "cite", "script", "style", "svg")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.prose: list[str] = []
        self.headings: list[str] = []
        self.values: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag in ("meta", "link", "img", "input", "br"):
            return
        self.tags.append(tag)
        if tag == "data":
            found = dict(attributes)
            self.values.append((f"{found['data-record']} {found['data-key']}", ""))

    def handle_endtag(self, tag):
        while self.tags and self.tags.pop() != tag:
            pass

    def handle_data(self, data):
        if "data" in self.tags and self.values:
            key, before = self.values[-1]
            self.values[-1] = (key, before + data)
        if "h2" in self.tags:
            self.headings.append(data)
        elif "main" in self.tags and not set(self.apart) & set(self.tags):
            self.prose.append(data)


@pytest.fixture(scope="module")
def reader(written):
    return Reader((written / "paper.html").read_text("utf-8"))


def test_every_section_is_there_in_both_forms(written, reader):
    assert reader.headings == SECTIONS
    text = (written / "paper.md").read_text("utf-8")
    found = re.findall(r"^## (.*)$", text, flags=re.M)
    assert found == [*SECTIONS, "Sources of the numbers"]


def test_the_page_loads_nothing_and_its_pictures_are_beside_the_markdown(written):
    text = (written / "paper.html").read_text("utf-8")
    assert "default-src 'none'" in text
    head = text[: text.index("<script>")]
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", head)
    pictures = re.findall(r"\]\((figures/.*?)\)", (written / "paper.md").read_text("utf-8"))
    assert len(pictures) == 3
    for picture in pictures:
        assert (written / picture).read_text("utf-8").startswith("<svg")


def test_no_number_of_the_prose_is_the_papers_own(reader):
    """A digit outside a value would be a number that no record holds."""
    prose = "".join(reader.prose)
    assert "No record of" in prose  # the reader reads
    assert re.findall(r"\S*\d\S*", prose) == []


def test_every_value_stands_in_its_record(written, made, reader):
    """What the page shows is what is found in the records again by the page's own keys."""
    stored = json.loads((written / "provenance.json").read_text("utf-8"))
    records = read_records([made])
    assert [record.sha256 for record in records] == [r["sha256"] for r in stored["records"]]
    known, numbers = {}, 0
    for entry in stored["values"]:
        value = Value(**{**entry, "path": tuple(entry["path"])})
        known[f"{value.record} {key_of(value.path)}", value.text] = value
        if value.missing:
            continue
        raw = resolve(records, value)
        if isinstance(raw, float):
            numbers += 1
            assert float(value.text) == pytest.approx(raw, rel=0.05, abs=1e-12), value
        elif isinstance(raw, str):
            assert value.text == raw.strip()
        elif isinstance(raw, int) and not isinstance(raw, bool):
            assert value.text.replace(",", "") == str(raw)
        else:
            assert value.text.split(", ")[0].strip()
    assert numbers > 200
    shown_on_page = {(key, text) for key, text in reader.values if text != "not recorded"}
    assert shown_on_page <= set(known)
    assert len(shown_on_page) > 300


def test_numbers_of_the_markdown_are_in_the_provenance(written):
    stored = json.loads((written / "provenance.json").read_text("utf-8"))
    known = " ".join(value["text"] for value in stored["values"])
    text = (written / "paper.md").read_text("utf-8")
    body = text[text.index("## Implementation") : text.index("## Sources of the numbers")]
    body = re.sub(r"## References.*?(?=\n## )", "", body, flags=re.S)
    body = re.sub(r"“.*?”", "", re.sub(r"\[\^\d+\]", " ", re.sub(r"`[^`]*`", "", body)))
    lines = [line for line in body.splitlines() if not line.startswith(("|", "!["))]
    found = re.findall(r"\d+(?:\.\d+)?", "\n".join(lines))
    assert len(found) > 50
    assert [number for number in found if number not in known] == []


def test_footnotes_lead_to_places(written):
    text = (written / "paper.md").read_text("utf-8")
    used = set(re.findall(r"(?<!^)\[\^(\d+)\]", text, flags=re.M))
    told = dict(re.findall(r"^\[\^(\d+)\]: (.*)$", text, flags=re.M))
    assert used == set(told)
    assert any(where.startswith("R2 run.json summary") for where in told.values())


def test_a_changed_record_changes_the_page(study, page):
    file = study / "run.json"
    data = json.loads(file.read_text("utf-8"))
    row = next(row for row in data["summary"] if row["metric"] == "accuracy")
    before = page(study)
    row["mean"] = 0.98765
    file.write_text(json.dumps(data), "utf-8")
    after = page(study)
    assert "0.988" in after
    assert "0.9877" in after  # in the tables of appendix D, to four places
    assert "0.988" not in before


def test_the_same_records_give_the_same_files(study, tmp_path):
    first = write_paper([study], tmp_path / "one")
    second = write_paper([study], tmp_path / "two")
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert {str(file) for file in files} >= {"paper.html", "paper.md", "provenance.json"}
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_a_paper_is_replaced_only_when_asked(study, tmp_path, monkeypatch):
    out = write_paper([study], tmp_path / "paper")
    with pytest.raises(RunFolderError, match="exists"):
        write_paper([study], out)

    from ed_interp.eval.paper import write

    def fail(*_):
        raise InvalidInputError("stop")

    kept = (out / "paper.md").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(write, "render", fail)
        with pytest.raises(InvalidInputError):
            write_paper([study], out, overwrite=True)
    assert (out / "paper.md").read_bytes() == kept
    assert not list(tmp_path.glob(".paper.partial"))


HOSTILE = (
    "<script>alert('x')</script>\"><img src=x onerror=alert(1)> | [x](javascript:y) `z` {{ 7 }}"
)


def test_hostile_strings_are_shown_and_not_obeyed(study):
    file = study / "run.json"
    data = json.loads(file.read_text("utf-8"))
    data["problem"] |= {"name": HOSTILE, "about": HOSTILE}
    data["model"]["name"] = HOSTILE
    data["command"] = HOSTILE
    data["plan"]["problem"][HOSTILE] = HOSTILE
    for row in data["trials"]:
        row["error"] = HOSTILE
    file.write_text(json.dumps(data), "utf-8")
    inner = study / "comparisons" / "final-bias-injection-rate0.003-seed0" / "comparison.json"
    other = json.loads(inner.read_text("utf-8"))
    other["treated"]["name"] = other["effects"][0]["name"] = HOSTILE
    other["effects"][3]["name"] = HOSTILE  # a name that is drawn
    inner.write_text(json.dumps(other), "utf-8")

    paper = make_paper([study])
    text = render(paper)
    body = text[: text.rindex("<script>", 0, text.rindex("Plotly.react"))]
    assert "<script>alert" not in text
    assert "<img" not in body
    assert "&lt;script&gt;alert" in body

    from ed_interp.eval.paper.markup import markdown_of

    pictures = {"study-r1": "a.svg", "comparison-r2": "b.svg"}
    markdown = markdown_of(paper, pictures, "")
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert "](javascript" not in markdown.replace("\\]", "")


def test_missing_records_are_gaps_with_commands_that_exist(made, written):
    from typer.main import get_command

    from ed_interp.cli import app

    verbs = set(get_command(app).commands)  # type: ignore[attr-defined]
    alone = make_paper([made / "curve"])
    texts = ["".join(map(str_of, block.parts)) for block in gaps(alone)]
    needed = ("controlled study", "comparison prompt by prompt", "adapter's configuration")
    for what in (*needed, "learning-rate sweep", "changed behaviour", "side effects"):
        assert any(what in text for text in texts), what
    commands = [m[1] for text in texts for m in re.finditer(r"ed-interp ([a-z]+)", text)]
    assert len(commands) >= 8
    assert set(commands) <= verbs
    assert "Missing." in render(alone)
    everything = make_paper([made])
    assert len(gaps(everything)) < len(gaps(alone))
    assert "**Missing.**" in (written / "paper.md").read_text("utf-8")


def gaps(paper):
    return [b for section in paper.sections for b in section.blocks if b.kind == "gap"]


def str_of(part):
    return part if isinstance(part, str) else part.text


def test_formats():
    assert shown(0.00123456, ".2g") == "0.0012"
    assert shown(True) == "yes"
    assert shown([0.5, None]) == "0.5, none"
    assert shown(17936, ",") == "17,936"
    assert key_of(("a", 0, "odd key", "b-c")) == "a[0]['odd key'].b-c"


def test_study_is_not_needed_twice(made, tmp_path):
    shutil.copytree(made / "study", tmp_path / "all" / "study")
    assert len(read_records([tmp_path / "all", tmp_path / "all" / "study"])) == 3
