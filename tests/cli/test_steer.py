"""``ed-interp steer``: find, apply, sweep, show, as a person would type them."""

import json

import pytest


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    countries = {"Italy": ("Rome", "Europe"), "Egypt": ("Cairo", "Africa"),
                 "Japan": ("Tokyo", "Asia"), "France": ("Paris", "Europe"),
                 "Peru": ("Lima", "America")}  # fmt: skip
    names = list(countries)
    rows, samples = [], []
    for first in names:
        for second in names:
            if first == second:
                continue
            (capital, continent), (answer, wanted) = countries[first], countries[second]
            rows.append({"positive": f"{first} -> {continent}\n{second} ->",
                         "negative": f"{first} -> {capital}\n{second} ->"})  # fmt: skip
            samples.append({"prompt": f"{first} -> {capital}\n{second} ->",
                            "wanted": f" {wanted}", "unwanted": f" {answer}"})  # fmt: skip
    for name, lines in (("pairs.jsonl", rows), ("samples.jsonl", samples)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "neutral.txt").write_text("a dog and a cat walk to the house")
    return tmp_path


def test_from_pairs_to_a_sweep(cli, pairs):
    site = "blocks.2.hook_resid_post"
    found = cli("steer", "find", "--pairs", "pairs.jsonl", "--out", "D.st", "--site", site,
                "--json", "--quiet")  # fmt: skip
    assert found.status == 0, found.stderr
    told = json.loads(found.stdout)
    assert list(told["norms"]) == [site]
    assert told["verdict"].startswith("no warning signs for")

    prompt = "France -> Paris\\nItaly ->"
    asked = ("steer", "apply", "--model", "icl-gpt2", "--direction", "D.st", "--prompt", prompt)
    for strength, expected in ((0, " Rome"), (1, " Europe")):
        done = cli(*asked, "--coefficient", strength, "--tokens", 1, "--json")
        assert done.status == 0, done.stderr
        (item,) = json.loads(done.stdout)["prompts"]
        assert item["unsteered"]["text"] == " Rome"
        assert item["steered"]["text"] == expected
        assert item["steered"]["logprobs"][0] <= 0
    assert "Europe" in cli(*asked, "--where", "last").stdout

    sweep = cli("steer", "sweep", "--direction", "D.st", "--samples", "samples.jsonl",
                "--neutral", "neutral.txt", "--instruction", "country-continent :\\n",
                "--coefficients", "0.5,1", "--budget", 50, "--out", "RUN", "--randoms", 1,
                "--quiet", "--json")  # fmt: skip
    assert sweep.status == 0, sweep.stderr
    result = json.loads(sweep.stdout)
    assert [row["control"] for row in result["comparisons"]][1] == "random direction"
    assert result["comparisons"][0]["ci_low"] > 0
    shown = cli("steer", "show", "RUN", "--json")
    assert json.loads(shown.stdout)["cells"] == result["cells"]
    assert "Held out" in cli("steer", "show", "RUN").stdout
    assert "<html" in (pairs / "RUN" / "report.html").read_text("utf-8")
    assert site in cli("steer", "show", "D.st").stdout


def test_a_function_vector(cli, pairs):
    done = cli("steer", "find", "--method", "function_vector", "--task", "country-capital",
               "--shots", 4, "--out", "FV.st", "--quiet")  # fmt: skip
    assert done.status == 0, done.stderr
    asked = cli("steer", "apply", "--direction", "FV.st", "--where", "last", "--prompt", "Egypt ->",
                "--tokens", 1, "--json")  # fmt: skip
    (item,) = json.loads(asked.stdout)["prompts"]
    assert item["unsteered"]["text"] != " Cairo"
    assert item["steered"]["text"] == " Cairo"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ("find", "--out", "D"),
            2,
            "--pairs must be given with --method mean_difference, and --task must not",
        ),
        (("find", "--out", "D", "--method", "mean"), 2, "unknown method 'mean'"),
        (("find", "--out", "D", "--pairs", "none.csv"), 2, "none.csv does not exist"),
        (("find", "--out", "no/D", "--pairs", "pairs.jsonl"), 1, "its folder does not exist"),
        (("find", "--out", "pairs.jsonl", "--pairs", "pairs.jsonl"), 1, "exists"),
        (("find", "--out", "D", "--pairs", "pairs.jsonl", "--heads", 2), 2, "--heads does not"),
        (("find", "--out", "D", "--pairs", "pairs.jsonl", "--site", "x"), 2, "unknown hook point"),
        (
            ("find", "--out", "D", "--pairs", "pairs.jsonl", "--method", "pca", "--set", "k=1"),
            2,
            "k must be a setting of PrincipalDirection",
        ),
        (("apply", "--direction", "none", "--prompt", "a"), 2, "none"),
        (("apply", "--direction", "a", "--prompt", "a", "--tokens", 0), 2, "--tokens must be 1 or"),
        (("apply", "--direction", "pairs.jsonl", "--prompt", "a"), 2, "pairs.jsonl"),
        (("show", "none"), 2, "none"),
    ],
)
def test_one_line_for_what_is_wrong(cli, pairs, arguments, status, message):
    outcome = cli("steer", *arguments)
    assert outcome.status == status, outcome.stderr
    assert message in outcome.error


def test_a_sweep_is_refused_before_there_is_a_folder(cli, pairs):
    cli("steer", "find", "--pairs", "pairs.jsonl", "--out", "D.st", "--quiet")
    line = {"--direction": "D.st", "--samples": "samples.jsonl", "--neutral": "neutral.txt",
            "--instruction": "x", "--out": "RUN"}  # fmt: skip
    for change, status, message in (
        ({"--samples": "pairs.jsonl"}, 2, "no text in prompt and wanted"),
        ({"--neutral": "none.txt"}, 2, "none.txt"),
        ({"--where": "first"}, 2, "where must be all, prompt, last or generation"),
        ({"--coefficients": "1,x"}, 2, "--coefficients must be a finite number, got 'x'"),
        ({"--budget": "0.5"}, 2, "--budget must be 1 or greater"),
        ({"--site": "blocks.0.hook_mlp_out"}, 2, "no vector at blocks.0.hook_mlp_out"),
    ):
        arguments = [part for pair in (line | change).items() for part in pair]
        outcome = cli("steer", "sweep", *arguments)
        assert outcome.status == status, outcome.stderr
        assert message in outcome.error
    assert not [path.name for path in pairs.iterdir() if "RUN" in path.name]
