"""No number of the template stands for itself, and its words are kept apart from the records'."""

from __future__ import annotations

import pytest

from ed_interp.errors import InvalidInputError
from ed_interp.eval.paper import write_paper
from ed_interp.eval.paper.records import read_records
from ed_interp.eval.paper.template import Template
from ed_interp.eval.paper.values import Code, Work


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("Accuracy rose to 0.93.", 1, "rose to 0.93."),
        ("# Title\n\n{% if true %}\n\nfine\n  and 7 more\n{% endif %}", 6, "and 7 more"),
        ("{# 1 2 3\n4 #}\n{{ name -}}\n\n  5 arms", 5, "5 arms"),
        ("`a` 3 `b`", 1, "3"),
        ("`{{ name }}` and 3 of `{{ name }}`", 1, "and 3 of"),
        ("over-5 and top-5", 1, "over-5"),
        ("GPT-2 has P-0.05", 1, "P-0.05"),
        ("{{ name }}\n{{ words('the top 5') }}", 2, "the top 5"),
        ("{{ '0.93' }}", 1, "0.93"),
        ("\u0663 arms", 1, "\u0663 arms"),  # a digit in any script
    ],
)
def test_a_number_of_the_templates_own_is_refused_with_its_line(source, line, words):
    with pytest.raises(InvalidInputError) as caught:
        Template(source, "paper.md")
    text = str(caught.value)
    assert text.startswith(f"paper.md, line {line}: the text must take its numbers from a record")
    assert words in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "source",
    [
        "GPT-2, `gpt2`, `exp(-1/tau)`, SHA-256 and E5 are names",
        "{# 1 comment #}{{ place('.3g') }}{{ rows[:12] }}{% set top = 5 %}",
        "{{ table(['E, bits: emergence .3g', 'gain* +.3g', 'n ,']) }}",
        "see [@lora]\n\n[@lora Hu, 2021]: LoRA. arXiv:2106.09685\n",
        "{% if a -%}\n`{{ command }}` makes one\n{% endif %}",
    ],
)
def test_names_formats_code_and_references_are_no_numbers(source):
    assert Template(source, "paper.md").source == source


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("one\n{{ 1 + 1 }}", 2, "printed text must come from a record, got 2"),
        ("one\n\n{{ names | length }}", 3, "printed text must come from a record, got 2"),
        ("{{ words }}", 1, "printed text must come from a record, got '5 arms'"),
        ("one\n{{ unknown }}", 2, "'unknown' is undefined"),
        ("{{ names.pop }}\n", 1, "unsafe"),
        ("one\n\n\n{{ ''.__class__.__mro__ }}", 4, "unsafe"),
    ],
)
def test_what_an_expression_prints_comes_from_a_record(source, line, reason):
    template = Template(source, "paper.md")
    with pytest.raises(InvalidInputError) as caught:
        template.render({"names": ["a", "b"], "words": "5 arms"})
    assert str(caught.value).startswith(f"paper.md, line {line}: ")
    assert reason in str(caught.value)


def test_a_place_is_printed_by_itself_or_not_at_all(made):
    study = read_records([made / "study"])[0].place()
    template = Template("{{ 'on ' ~ study.tested }}", "paper.md")
    with pytest.raises(InvalidInputError, match="tested must be printed by itself"):
        template.render({"study": study})
    draft = Template("{{ study.tested }} and {{ study.path }}", "x").render({"study": study})
    assert [value.path for value in draft.values()] == [("tested",), ("path",)]


def test_syntax_and_unknown_citations_are_refused_with_their_line():
    with pytest.raises(InvalidInputError, match=r"^x, line 2: "):
        Template("fine\n{% if %}", "x")
    with pytest.raises(InvalidInputError, match=r"^x, line 3: \[@hu\] must be in the list"):
        Template("fine\n\nsee [@hu]", "x")


def test_only_cited_works_are_listed():
    entries = "[@]: > None.\n[@a A, 2020]: First.\n[@b B, 2021]: Second.\n"
    cited = Template(f"see [@b]\n\n{entries}", "x").render({})
    assert [(part.key, part.listed) for part in cited.parts if isinstance(part, Work)] == [
        ("b", True),
        ("b", False),
    ]
    assert "None" not in cited.text
    assert Template(entries, "x").render({}).text.strip() == "> None."


def test_parts_are_kept_apart_from_the_markdown():
    draft = Template("- {{ name }}\n\n\n- {{ name }}\n", "x").render({"name": Code("**a** [@b]")})
    assert "a" not in draft.text
    assert draft.text.count("\n\n") == 0  # a tight list
    assert draft.filled(draft.text, lambda part: part.text) == "- **a** [@b]\n- **a** [@b]"


def test_an_edited_template_is_used_and_checked_before_anything_is_written(made, tmp_path):
    file = tmp_path / "mine.md"
    file.write_text("# {{ curves[0].model }}\n\n## Only\n\n{{ curves[0].rows[0].emergence }}\n")
    path = write_paper([made / "curve"], tmp_path / "paper", template=file)
    assert "0.5391" in (path / "paper.md").read_text("utf-8")
    file.write_text("# Title\n\n## Only\n\n0.5391\n")
    with pytest.raises(InvalidInputError, match=r"^mine\.md, line 5: "):
        write_paper([made / "curve"], tmp_path / "other", template=file)
    with pytest.raises(InvalidInputError, match="must be a Markdown file"):
        write_paper([made / "curve"], tmp_path / "other", template=tmp_path / "nowhere")
    assert not (tmp_path / "other").exists()


def test_the_template_of_the_package_needs_no_record_of_any_kind(made, draft):
    paper = draft(made / "curve")
    assert paper.text.strip().startswith("# Records of ")
