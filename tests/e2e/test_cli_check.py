"""check, explain, ops and docs as a user and an editor meet them: places of mistakes, exit codes, and that everything that is
made from the tables agrees with what the parser takes."""
import json
import re
import shutil
import subprocess

import pytest
from conftest import ROOT, SHARDMILL, good, run

RECIPES = sorted(p.name for p in (ROOT / "pipelines").glob("*.yaml"))
GOOD = "version: 1\nsource: {path: data}\nops:\n  - Resize: {size: 256}\n  - CenterCrop: {size: 224}\n"

ALONE = "version: 1\nsource: {{path: x}}\nops:\n  - {}\noutput: {{dtype: float32}}\nexpand: {{encode: tensor}}\n"


@pytest.fixture
def file(tmp_path):
    def write(text, name="f.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_valid_file_tells_ops_and_output(file):
    path = file(GOOD)
    assert good("check", path).stdout == f"{path}: ok (2 ops, out 224x224 RGB uint8)\n"
    assert good("check", "--quiet", path).stdout == ""


@pytest.mark.parametrize("page", ["README.md", "docs/DESIGN.md"])
def test_examples_in_the_documents_are_valid_files(file, page):
    examples = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.S)
    assert examples
    for text in examples:
        text = text if text.startswith("version:") else "version: 1\n" + text
        good("check", file(text if "source:" in text else text + "source: {path: data}\n"))


@pytest.mark.parametrize("text, place, what", [
    ("version: 1\nsource: {path: x}\nops:\n  - RandomResizedCorp: {size: 224}\n", "4:5",
     "unknown op 'RandomResizedCorp' (hint: did you mean 'RandomResizedCrop'?)"),
    ("version: 1\nsource: {path: x}\nops:\n  - Resize: {sise: 224}\n", "4:14",
     "unknown parameter 'sise' in 'Resize' (hint: did you mean 'size'?)"),
    ("version: 1\nsourc: {path: x}\n", "2:1", "unknown key 'sourc' in a pipeline file (hint: did you mean 'source'?)"),
    ("version: 1\nsource: {path: x, format: csv}\nops: [SMOTE]\n", "3:7", "'SMOTE' is no op (hint: rebalance: {SMOTE: {}}, beside 'ops')"),
    ("version: 1\nsource: {path: x}\nrebalance: {RepeatFactor: {}, WeightedSampler: {}}\n", "3:31",
     "one method rebalances, but 'WeightedSampler' follows 'RepeatFactor' (hint: leave one out, or indent it if it is a parameter)"),
    ("version: 1\nsource: {path: x}\nops:\n  - RandomHorizontalFlip: {p: 2}\n", "4:31",
     "'p' must be a number in [0, 1], not 2"),
    ("version: 1\nsource: {path: x}\noutput: {shuffle: no}\n", "3:19",
     "'shuffle' must be true or false, not 'no' (hint: write false)"),
    ("version: 1\n\tname: x\n", "2:1", "a tab cannot indent (hint: use spaces)"),
    (b"version: 1\nname: \xff\n", "2:7", "byte 0xff is not UTF-8 (hint: save the file as UTF-8)"),
])
def test_a_mistake_is_shown_at_its_place(file, text, place, what):
    path = file(text)
    done = run("check", path)
    assert done.returncode == 2 and done.stdout == ""
    first, line, caret = done.stderr.rstrip("\n").split("\n")
    assert first == f"{path}:{place}: {what}"
    assert len(caret) == int(place.split(":")[1]) and caret.strip() == "^"
    if isinstance(text, str):
        assert line == text.split("\n")[int(place.split(":")[0]) - 1]


def test_what_an_op_cannot_do_is_found_before_any_run(file):
    path = file("version: 1\nsource: {path: x}\nops:\n  - Normalize: {mean: [0.5], std: [0.5, 0.5]}\n")
    done = run("check", path)
    assert done.returncode == 2 and done.stderr.startswith(f"{path}:4:5: ")


def test_one_bad_file_among_good_ones_does_not_hide_them(file):
    one, two, three = file(GOOD, "1.yaml"), file("version: 3\n", "2.yaml"), file(GOOD, "3.yaml")
    done = run("check", one, two, three)
    assert done.returncode == 2
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [str(one), str(three)]
    assert f"{two}:1:10: 'version' must be 1, not 3" in done.stderr
    report = json.loads(run("check", "--json", one, two, three).stdout)
    assert [r["ok"] for r in report] == [True, False, True] and report[1]["code"] == "pipeline"
    assert re.fullmatch("[0-9a-f]{32}", report[0]["pipeline_digest"])


@pytest.mark.parametrize("arguments, what", [
    ([], "usage: shardmill COMMAND"),
    (["exapnd"], "unknown command 'exapnd' (hint: did you mean 'expand'?)"),
    (["frobnicate"], "unknown command 'frobnicate'"),
    (["check"], "'check' needs FILE"),
    (["check", "--jsn", "x"], "unknown option '--jsn' of 'check' (hint: did you mean '--json'?)"),
    (["explain", "x", "--seed"], "option '--seed' needs a value (hint: --seed N)"),
    (["explain", "x", "--seed", "-1"], "'--seed' must be a whole number of at least 0, not -1"),
    (["explain", "x", "--seed=1.5"], "'--seed' must be a whole number of at least 0, not 1.5"),
    (["explain", "x", "y"], "'explain' does not take 'y'"),
    (["expand", "x"], "'expand' needs --out"),
    (["ops", "RandomFlip"], "unknown op 'RandomFlip'"),
    (["ops", "resize"], "unknown op 'resize' (hint: did you mean 'Resize'?)"),
    (["help", "explian"], "unknown command 'explian' (hint: did you mean 'explain'?)"),
    (["check", "/no/such/file.yaml"], "cannot open pipeline file '/no/such/file.yaml': No such file or directory"),
    (["check", "/"], "'/' is a folder"),
])
def test_wrong_use_says_what_and_ends_with_2(arguments, what):
    done = run(*arguments)
    assert done.returncode == 2 and what in done.stderr and done.stdout == ""


def test_options_are_read_in_every_common_form(file, tmp_path):
    path = file(GOOD)
    file(GOOD, "--odd.yaml")
    assert good("check", path, "-q").stdout == "" == good("check", "--quiet=true", path).stdout
    assert good("check", "-q", "--no-quiet", path).stdout != ""
    assert good("check", "--", "--odd.yaml", cwd=tmp_path).stdout.startswith("--odd.yaml: ok")
    for form in (["--seed", "7"], ["--seed=7"], ["--seed=0x7"]):
        assert json.loads(good("explain", path, "--json", *form).stdout)["pipeline"]["seed"] == 7
    assert good("check", "-h").stdout == good("check", "--help").stdout == good("help", "check").stdout
    assert good("--help").stdout == good("help").stdout and good("--version").stdout.startswith("shardmill ")


def test_a_result_that_cannot_be_written_is_a_failure(file):
    with open("/dev/full", "w") as full:
        done = subprocess.run([SHARDMILL, "check", str(file(GOOD))], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "No space left on device" in done.stderr


# --- explain ---

@pytest.mark.parametrize("recipe", RECIPES)
def test_what_explain_prints_is_the_same_pipeline(recipe, file):
    path = ROOT / "pipelines" / recipe
    text = good("explain", path).stdout
    head, _, _ = text.partition("\n# the plan")
    again = file(head, recipe)
    digest = json.loads(good("check", "--json", path).stdout)[0]["pipeline_digest"]
    assert json.loads(good("check", "--json", again).stdout)[0]["pipeline_digest"] == digest
    assert text.startswith(f"# pipeline {digest}, ")


def test_explain_counts_classes_and_shards(photos):
    path = ROOT / "pipelines" / "photos.yaml"
    text = good("explain", path, "--source", photos).stdout
    assert re.search(r"^  birch +16 +64  #+$", text, re.M) and re.search(r"^  oak +2 +8  #+$", text, re.M)
    assert "24 samples x 4 copies = 96 positions in 1 shard of 1000" in text
    assert "out: 224x224 RGB uint8, 147.0 KiB as a tensor; a batch of 32: 4.6 MiB" in text
    report = json.loads(good("explain", path, "--source", photos, "--seed", 5, "--json").stdout)
    assert report["dataset"]["positions"] == 96 and report["pipeline"]["seed"] == 5
    assert {c["name"]: c["in_shards"] for c in report["dataset"]["classes"]} == {"birch": 64, "cedar": 24, "oak": 8}
    assert report["out"]["sample_bytes"] == 224 * 224 * 3


def test_explain_shows_the_plan_although_the_data_is_not_there(tmp_path):
    path = ROOT / "pipelines" / "photos.yaml"
    assert "nothing at" in good("explain", path, "--source", tmp_path / "no").stdout
    tars = tmp_path / "tars.yaml"
    tars.write_text("version: 1\nsource: {format: webdataset, path: 'no-{000..003}.tar'}\n")
    assert "nothing at" in good("explain", tars).stdout
    tars.unlink()
    done = run("explain", path, "--source", tmp_path)  # there, but empty
    assert done.returncode == 1 and "# the plan" in done.stdout and str(tmp_path) in done.stderr


# --- ops and what is made from the tables ---

def ops():
    return json.loads(good("ops", "--json").stdout)


def test_ops_lists_and_explains_each_op():
    listing = good("ops").stdout
    for op in ops():
        assert re.search(rf"^{op['name']} ", listing, re.M)
        text = good("ops", op["name"]).stdout
        assert op["example"] in text and all(f"\n  {p['name']} " in text for p in op["parameters"] + op["draws"])
        assert json.loads(good("ops", op["name"], "--json").stdout) == op
        assert op["doc"] and all(p["doc"] for p in op["parameters"] + op["draws"]), op["name"]


def alone(op):
    """A pipeline whose last op is this one; what works on rows gets a table."""
    if op["rows"]:
        return f"version: 1\nsource: {{format: csv, path: x}}\nops:\n  - {op['example']}\n"
    if op["name"] == "Flatten":
        return "version: 1\nsource: {path: x}\nops:\n  - Resize: {size: [8, 8]}\n  - Flatten\n"
    return ALONE.format(op["example"])


def test_the_example_of_each_op_is_valid(file):
    for op in ops():
        good("check", file(alone(op)))


class Schema:
    """As much of draft-07 as our schema uses; an unknown keyword is a mistake in the schema."""
    TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}

    def __init__(self):
        self.root = json.loads(good("ops", "--schema").stdout)

    def is_type(self, value, name):
        if name in ("integer", "number"):
            fits = isinstance(value, (int, float)) and not isinstance(value, bool)
            return fits and (name == "number" or value == int(value))
        return isinstance(value, self.TYPES[name])

    def ok(self, value, schema=None):
        schema = self.root if schema is None else schema
        return all(getattr(self, "check_" + key.lstrip("$"))(value, rule, schema) for key, rule in schema.items()
                   if key not in ("$schema", "title", "description", "default", "definitions", "additionalProperties"))

    def check_ref(self, value, rule, _):
        start, _, name = rule.rpartition("/")
        assert start == "#/definitions"
        return self.ok(value, self.root["definitions"][name])

    def check_type(self, value, rule, _):
        return any(self.is_type(value, name) for name in ([rule] if isinstance(rule, str) else rule))

    def check_enum(self, value, rule, _):
        return value in rule

    def check_anyOf(self, value, rule, _):
        return any(self.ok(value, s) for s in rule)

    def check_allOf(self, value, rule, _):
        return all(self.ok(value, s) for s in rule)

    def check_properties(self, value, rule, schema):
        assert schema["additionalProperties"] is False
        return not isinstance(value, dict) or all(k in rule and self.ok(v, rule[k]) for k, v in value.items())

    def check_required(self, value, rule, _):
        return not isinstance(value, dict) or all(k in value for k in rule)

    def check_items(self, value, rule, _):
        return not isinstance(value, list) or all(self.ok(v, rule) for v in value)

    def check_minItems(self, value, rule, _):
        return not isinstance(value, list) or len(value) >= rule

    def check_maxItems(self, value, rule, _):
        return not isinstance(value, list) or len(value) <= rule

    def check_minLength(self, value, rule, _):
        return not isinstance(value, str) or len(value) >= rule

    def check_minimum(self, value, rule, _):
        return not isinstance(value, (int, float)) or value >= rule

    def check_maximum(self, value, rule, _):
        return not isinstance(value, (int, float)) or value <= rule


def test_the_schema_takes_every_recipe():
    schema = Schema()
    for recipe in RECIPES:
        assert schema.ok(json.loads(good("explain", ROOT / "pipelines" / recipe, "--json").stdout)["pipeline"]), recipe


def test_schema_and_parser_agree(file):
    """Edits of a valid file: whatever one of the two refuses, so does the other."""
    schema = Schema()
    base = {"version": 1, "source": {"path": "x"}, "ops": [{"Resize": {"size": 8}}]}
    edits = [
        {}, {"seed": 3}, {"seed": -1}, {"seed": "3"}, {"seed": 1.5}, {"name": None}, {"name": ""}, {"version": 2},
        {"unknown": 1}, {"source": {}}, {"source": None}, {"source": {"path": "x", "pth": 1}}, {"output": None},
        {"output": {"batch_size": 0}}, {"output": {"shuffle": "yes"}}, {"output": {"layout": "NCWH"}}, {"expand": []},
        {"source": {"path": "x", "background": [1, 2, 3]}}, {"source": {"path": "x", "background": [1, 2]}},
        {"source": {"path": "x", "background": None}}, {"source": {"path": "x", "background": 256}},
        {"ops": []}, {"ops": ["RandomHorizontalFlip"]}, {"ops": ["Resize"]}, {"ops": [{"Resize": None}]},
        {"ops": [{"RandomHorizontalFlip": None}]}, {"ops": [{"RandomHorizontalFlip": {"p": 1.01}}]},
        {"ops": [{"RandomHorizontalFlip": {}, "Resize": {"size": 3}}]}, {"ops": [{}]}, {"ops": {"Resize": {"size": 3}}},
        {"ops": [["Resize"]]}, {"ops": [{"Nothing": {}}]}, {"ops": [{"Resize": {"size": [3, 4]}}]},
        {"ops": [{"Resize": {"size": [3, 4, 5]}}]}, {"ops": [{"Resize": {"size": 3, "interpolation": "bilinaer"}}]},
        {"ops": [{"RandomApply": {"transforms": ["RandomHorizontalFlip"]}}]}, {"ops": [{"RandomApply": {"p": 0.1}}]},
        {"ops": [{"RandomApply": {"transforms": ["Nothing"]}}]}, {"ops": [{"RandomApply": {"transforms": {}}}]},
    ]
    for edit in edits:
        document = {**base, **edit}
        parsed = run("check", file(json.dumps(document), "edit.json"))
        assert parsed.returncode in (0, 2)
        assert schema.ok(document) == (parsed.returncode == 0), (edit, parsed.stderr)


def test_each_default_that_ops_tells_is_the_one_that_is_used(file):
    for op in ops():
        given = {p["name"]: p["default"] for p in op["parameters"] if "default" in p}
        path = file(alone(op))
        used = json.loads(good("explain", path, "--json").stdout)["pipeline"]["ops"][-1][op["name"]]
        assert set(used) == {p["name"] for p in op["parameters"]}
        for name, value in given.items():
            if name not in op["example"]:
                assert used[name] == value, (op["name"], name)


def test_the_man_page_renders_without_a_warning(tmp_path):
    page = tmp_path / "shardmill.1"
    page.write_text(good("docs", "man").stdout)
    if shutil.which("man") is None:
        pytest.skip("no man here")
    done = subprocess.run(["man", "--warnings", "-l", str(page)], capture_output=True, text=True,
                          env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "100", "TERM": "dumb"})
    assert done.returncode == 0 and done.stderr == "" and "shardmill" in done.stdout.lower()


def test_completion_offers_commands_options_ops_and_files(tmp_path, file):
    file(GOOD, "my pipeline.yaml")
    script = tmp_path / "complete.bash"
    script.write_text(good("docs", "bash").stdout)

    def complete(*words):
        call = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _shardmill; printf "%s\\n" "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", call, "-", str(script), *words], capture_output=True, text=True, cwd=tmp_path)
        assert done.stderr == ""
        return done.stdout.split("\n")[:-1]

    assert "expand" in complete("shardmill", "ex") and "explain" in complete("shardmill", "ex")
    assert complete("shardmill", "check", "--js") == ["--json"]
    assert complete("shardmill", "ops", "RandomR") == ["RandomResizedCrop", "RandomRotation"]
    assert complete("shardmill", "check", "my") == ["my pipeline.yaml"]
    assert "status" in complete("shardmill", "help", "")


def test_every_document_is_made():
    assert good("docs", "ops").stdout.count("\n## ") >= len(ops()) + 4
    assert "SM_MAX_IMAGE_PIXELS" in good("docs", "limits").stdout
    assert run("docs", "pdf").returncode == 2
