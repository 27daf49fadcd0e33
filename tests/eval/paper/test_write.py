"""The paper as it lies in its folder: complete, from the records alone, and repeatable."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ed_interp.charts.still import svg
from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.eval.paper import write_paper
from ed_interp.eval.paper.page import html, markdown
from ed_interp.eval.paper.records import read_records
from ed_interp.eval.paper.values import Value, key_of, shown

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


class Reader(HTMLParser):
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


def test_tables_and_pictures_can_be_read_without_seeing_them(written):
    text = (written / "paper.html").read_text("utf-8")
    tables = text.count("<table>")
    assert tables > 20
    assert text.count("<caption>") == tables
    assert text.count('role="region" aria-labelledby=') == tables
    assert "<td style=" not in text
    rows = re.findall(r"<tr>\n(<t[hd][^>]*>)", text)
    assert set(rows) == {'<th scope="col" class="text">', '<th scope="col">',
                         '<th scope="row" class="text">'}  # fmt: skip
    ids = re.findall(r' id="([^"]+)"', text[: text.index("<script>")].replace("<svg", "\n<svg"))
    pictures = re.findall(r'<div id="([^"]+)" class="plot" role="group" aria-label=', text)
    assert len(pictures) == len(set(pictures)) == 3
    assert {f"{name}-{theme}" for name in pictures for theme in ("light", "dark")} <= set(ids)
    for link in re.findall(r'href="#([^"]+)"', text):
        assert f'id="{link}"' in text


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
        raw = records[int(value.record[1:]) - 1].files[value.file]
        for step in value.path:
            raw = raw[step]
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
    body = re.sub(r"\[[^\]]*\]\(#references\)", "", body)
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


def test_a_changed_record_changes_the_page(study, draft):
    file = study / "run.json"
    data = json.loads(file.read_text("utf-8"))
    row = next(row for row in data["summary"] if row["metric"] == "accuracy")
    before = markdown(draft(study))
    row["mean"] = 0.98765
    file.write_text(json.dumps(data), "utf-8")
    after = markdown(draft(study))
    assert "0.988 (" in after
    assert "0.9877 |" in after  # in the tables of appendix D, to four places
    assert "0.988 (" not in before


def test_the_same_records_give_the_same_files_and_replace_only_by_overwrite(
    made, tmp_path, monkeypatch
):
    first = write_paper([made / "curve"], tmp_path / "paper")
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert {str(file) for file in files} >= {"paper.html", "paper.md", "provenance.json"}
    kept = {file: (first / file).read_bytes() for file in files}
    with pytest.raises(RunFolderError, match="exists"):
        write_paper([made / "curve"], first)

    from ed_interp.eval.paper import write

    def fail(*_):
        raise InvalidInputError("stop")

    with monkeypatch.context() as patch:
        patch.setattr(write, "render", fail)
        with pytest.raises(InvalidInputError):
            write_paper([made / "curve"], first, overwrite=True)
    assert (first / "paper.md").read_bytes() == kept[Path("paper.md")]
    assert not list(tmp_path.glob(".paper.partial"))
    write_paper([made / "curve"], first, overwrite=True)
    for file, content in kept.items():
        assert (first / file).read_bytes() == content, file


HOSTILE = (
    "<script>alert('x')</script>\"><img src=x onerror=alert(1)> | [x](javascript:y) `z` {{ 7 }} "
    "\ue00099999\ue001"  # as a mark of the template's engine
)


def test_hostile_strings_are_shown_and_not_obeyed(study, draft, page):
    file = study / "run.json"
    data = json.loads(file.read_text("utf-8"))
    data["problem"] |= {"name": HOSTILE, "about": HOSTILE, HOSTILE: HOSTILE}
    data["model"]["name"] = HOSTILE
    data["settings"]["command"] = HOSTILE
    data["arms"][0]["options"][HOSTILE] = HOSTILE
    for row in data["trials"]:
        row["error"] = HOSTILE
    file.write_text(json.dumps(data), "utf-8")
    (inner,) = study.glob("comparisons/*/comparison.json")
    other = json.loads(inner.read_text("utf-8"))
    other["treated"]["name"] = other["effects"][0]["name"] = HOSTILE
    other["effects"][3]["name"] = HOSTILE  # a name that is drawn
    inner.write_text(json.dumps(other), "utf-8")

    text = page(study)
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "&lt;script&gt;alert" in text

    paper = draft(study)
    text = markdown(paper)
    assert "<script" not in text
    assert "<img" not in text
    assert "](javascript" not in text.replace("\\]", "")

    chart = paper.pictures()[1].chart
    picture = ElementTree.fromstring(svg(chart, label=HOSTILE))  # whole, and without elements of it
    assert not [node for node in picture.iter() if node.tag.endswith(("script", "img"))]
    place = paper.parts.index(paper.pictures()[1])
    drawn = html(paper, {chart.name: svg(chart)}, f"\ue000{place}\ue001", "x")
    assert "99999" in drawn  # and was not taken for the mark of a part
    assert "<script>alert" not in drawn
    assert drawn.count("<script") == 2


def test_missing_records_are_gaps_with_commands_that_exist(made, written, draft):
    from ed_interp.cli.app import VERBS

    verbs = set(VERBS)
    alone = re.findall(r"^> \*\*Missing\.\*\* (.*)$", draft(made / "curve").text, flags=re.M)
    needed = ("controlled study", "comparison prompt by prompt", "adapter's configuration")
    for what in (*needed, "learning-rate sweep", "changed behaviour", "side effects"):
        assert any(what in text for text in alone), what
    commands = [m[1] for text in alone for m in re.finditer(r"ed-interp ([a-z]+)", text)]
    assert len(commands) >= 8
    assert set(commands) <= verbs
    everything = (written / "paper.md").read_text("utf-8").count("> **Missing.**")
    assert 0 < everything < len(alone)
    page = (written / "paper.html").read_text("utf-8")
    assert page.count("<blockquote>") == everything


def test_a_table_too_long_for_a_page_says_so(made, tmp_path, draft):
    copy = shutil.copytree(made / "curve", tmp_path / "curve")
    data = json.loads((copy / "run.json").read_text("utf-8"))
    data["rows"] = data["rows"] * 100
    (copy / "run.json").write_text(json.dumps(data), "utf-8")
    paper = draft(copy)
    assert "The first rows are shown; the record has all of them." in paper.text
    places = {value.path[1] for value in paper.values() if value.path[-1] == "macro"}
    assert places == set(range(300))


def test_formats():
    assert shown(0.00123456, ".2g") == "0.0012"
    assert shown(True) == "yes"
    assert shown([0.5, None]) == "0.5, none"
    assert shown(17936, ",") == "17,936"
    assert key_of(("a", 0, "odd key", "b-c")) == "a[0]['odd key'].b-c"


def test_study_is_not_needed_twice(made, tmp_path):
    shutil.copytree(made / "study", tmp_path / "all" / "study")
    assert len(read_records([tmp_path / "all", tmp_path / "all" / "study"])) == 3
