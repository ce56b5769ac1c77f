"""Rows as a user looks at them before a run: preview and explain of tables and of images that become features, and what they say
when the file and the data do not fit."""
import csv
import io
import json
import math
import os
import re

import numpy as np
import pytest

from conftest import decode, good, run

WINES = ("alcohol,colour,malic,kind\n12.5,red,1.2,a\n13.5,white,,b\n11.0,red,2.2,a,extra\n14.0,rose,3.1,b\n12.0,white,1.0,a\n"
         "10.0,red,2.0,b\n")
FEATURES = """\
version: 1
name: pixels
seed: 3
source: {{format: folder, path: {path}}}
ops:
  - Resize: {{size: [12, 16]}}
  - Flatten
  - StandardScaler: {{with_std: {std}}}
  - PCA: {{n_components: {n}}}
"""


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Writes a table and its pipeline into the working directory: table(ops, source="", more="", text=WINES)."""
    monkeypatch.chdir(tmp_path)

    def write(ops, source=", label: kind", more="", text=WINES):
        (tmp_path / "wines.csv").write_text(text)
        lines = "".join(f"  - {op}\n" for op in ops)
        (tmp_path / "wines.yaml").write_text(
            f"version: 1\nname: wines\nseed: 2\nsource: {{format: csv, path: wines.csv{source}}}\n{more}ops:\n{lines}"
            "output: {shuffle: false}\n")
        return "wines.yaml"

    return write


def blocks(text):
    """Title -> column -> cells, of a preview of a table."""
    found = {}
    for block in text.split("\n\n")[1:]:
        title, *lines = block.splitlines()
        found[title.split(":")[0]] = {line.split()[0]: line.split()[1:] for line in lines}
    return found


def test_a_preview_of_a_table_is_its_first_rows_before_and_after(table):
    found = blocks(good("preview", table(["StandardScaler: {columns: [alcohol]}", "OneHotEncoder"])).stdout)
    read, made = found["as read"], found["as a trainer gets them"]
    assert read["row"] == ["0", "1", "3", "4", "5"] and read["label"] == ["a", "b", "b", "a", "b"]
    assert read["colour"] == ["category", "(3)", "red", "white", "rose", "white", "red"]
    assert read["malic"] == ["number", "1.2", "missing", "3.1", "1", "2"]
    alcohol = np.array([12.5, 13.5, 14, 12, 10])
    assert np.allclose([float(v) for v in made["alcohol"][1:]], (alcohol - alcohol.mean()) / alcohol.std(), rtol=1e-5)
    assert made["colour_red"][1:] == ["1", "0", "0", "0", "1"]


def test_a_preview_of_a_table_tells_the_rows_that_cannot_be_read(table):
    text = good("preview", table(["StandardScaler"])).stdout
    assert "1 row of the table cannot be read" in text and f"row 2, line 4, byte {WINES.index('11.0')}:" in text


def test_a_preview_as_csv_has_what_a_trainer_gets(table):
    file = table(["StandardScaler: {columns: [alcohol]}", "OneHotEncoder"])
    good("preview", file, "-o", "rows.csv")
    rows = list(csv.reader(io.StringIO(open("rows.csv").read())))
    assert rows[0] == ["row", "label", "alcohol", "malic", "colour_red", "colour_rose", "colour_white"]
    assert [r[:2] for r in rows[1:]] == [["0", "a"], ["1", "b"], ["3", "b"], ["4", "a"], ["5", "b"]]
    assert rows[2][3] == "" and float(rows[1][3]) == pytest.approx(1.2)


def test_a_preview_says_which_rows_rebalancing_added(table):
    file = table(["StandardScaler"], more="rebalance: {RandomOverSampler: {}}\n")
    done = good("preview", file, "--class", "a").stdout
    rows = next(line.split()[1:] for line in done.splitlines() if line.startswith("  row "))
    marks = next(line for line in done.splitlines() if line.startswith("  drawn as"))
    assert sorted(set(rows)) == ["0", "4"] and len(rows) == 3 and marks.split()[2:] == ["added"]


def test_a_preview_shows_between_which_rows_a_synthetic_one_lies(table):
    lines = "".join(f"{i / 7},{(i * 37) % 11},{'b' if i % 4 == 0 else 'a'}\n" for i in range(40))
    file = table(["SelectColumns: {columns: [alcohol]}"], more="rebalance: {SMOTE: {k_neighbors: 3}}\n",
                 text="alcohol,malic,kind\n" + lines)
    lines = good("preview", file, "--class", "b", "--samples", 30).stdout.split("\n\n")[1].splitlines()
    values = [float(v) for v in next(line for line in lines if line.startswith("  alcohol")).split()[2:]]
    rows = re.findall(r"\d+(?: to \d+)?", next(line for line in lines if line.startswith("  row")))
    gaps = iter(re.findall(r"synthetic, at (0\.\d+)", next(line for line in lines if line.startswith("  drawn as"))))
    assert len(rows) == len(values) == 30 and sum(" to " in r for r in rows) == 20
    for row, value in zip(rows, values):
        ends = [int(r) / 7 for r in row.split(" to ")]
        gap = float(next(gaps)) if len(ends) == 2 else 0
        assert value == pytest.approx(ends[0] + gap * (ends[-1] - ends[0]), abs=3e-3)


def test_a_name_of_the_data_cannot_command_a_terminal(table):
    file = table(["StandardScaler"], text="alcohol,colour,kind\n1,\x1b[31mred,a\n2,blue,b\n3,blue,a\n")
    for command in ("preview", "explain"):
        assert "\x1b" not in good(command, file).stdout, command


def test_explain_lists_columns_and_bad_rows(table):
    found = json.loads(good("explain", "--json", table(["SimpleImputer", "StandardScaler"])).stdout)
    columns = {c["name"]: c for c in found["table"]["columns"]}
    assert list(columns) == ["alcohol", "colour", "malic"] and found["table"]["label"] == "kind"
    assert columns["colour"]["categories"] == ["red", "rose", "white"] and columns["malic"]["missing"] == 1
    assert found["table"]["bad_rows"] == 1
    assert found["table"]["bad"][0]["line"] == 4 and found["table"]["bad"][0]["offset"] == WINES.index("11.0")
    assert [(f["op"], f["columns_in"], f["columns_out"]) for f in found["features"]] == [
        ("SimpleImputer", 3, 3), ("StandardScaler", 3, 3)]
    assert found["out"]["columns"] == 3 and found["out"]["batch_bytes"] == 3 * 4 * 32


def test_explain_tells_what_rebalancing_makes_of_each_class(table):
    file = table(["SelectColumns: {columns: [alcohol]}"], more="rebalance: {RandomOverSampler: {sampling_strategy: {a: 6}}}\n")
    classes = {c["name"]: c for c in json.loads(good("explain", "--json", file).stdout)["dataset"]["classes"]}
    a, b = classes["a"], classes["b"]
    assert [a[k] for k in ("samples", "per_epoch", "distinct", "repeated", "synthetic")] == [2, 6, 2, 4, 0]
    assert [b[k] for k in ("samples", "per_epoch", "distinct", "repeated", "synthetic")] == [3, 3, 3, 0, 0]
    assert a["log_prior_shift"] == pytest.approx(math.log(2 / 5) - math.log(6 / 9))
    line = next(line for line in good("explain", file).stdout.splitlines() if line.startswith("  a "))
    assert line.split()[1:6] == ["2", "6", "2", "4", "0"] and line.count("#") + line.count("+") == 40
    assert line.count("+") == pytest.approx(2 * line.count("#"), abs=2)


def test_explain_tells_what_is_to_be_fitted_and_what_is_known(table):
    file = table(["StandardScaler", "DropColumns: {columns: [colour, malic]}", "PCA"])
    before = good("explain", file).stdout
    assert "by covariance_eigh, is yet to be fitted" in before and "hint: shardmill fit" in before
    good("preview", file)
    after = json.loads(good("explain", "--json", file).stdout)
    assert after["out"]["columns"] == 1 and all("artifact" in f for f in after["features"] if f["learns"])
    assert after["features"][2]["variance_kept"] == pytest.approx(1)


def test_check_of_rows_reads_no_data(table):
    file = table(["StandardScaler", "PCA: {n_components: 2}"])
    os.unlink("wines.csv")
    assert good("check", file).stdout == "wines.yaml: ok (2 ops, rows float32)\n"


@pytest.mark.parametrize("op, place, what", [
    ("CenterCrop: {size: [8, 8]}", "", ""),
    ("Resize: {size: 8}", "5:5", "'Flatten' needs images of one size"),
    ("Resize: {size: [800, 800]}", "5:5", "'Flatten' makes 1920000 columns"),
])
def test_check_of_features_knows_the_pixels(tmp_path, op, place, what):
    file = tmp_path / "f.yaml"
    file.write_text(f"version: 1\nsource: {{path: x}}\nops:\n  - {op}\n  - Flatten\n  - SelectColumns: {{columns: [p0, p191]}}\n")
    done = run("check", file)
    assert done.stderr.startswith(f"shardmill: {file}:{place}: {what}" if what else "") and (done.returncode == 2) == bool(what)


@pytest.mark.parametrize("command", ["explain", "preview"])
def test_a_wrong_column_is_named_with_its_place_and_the_nearest(table, command):
    done = run(command, table(["SimpleImputer", "StandardScaler: {columns: [alcohl]}"]))
    assert done.returncode == 2
    assert "'StandardScaler': no column 'alcohl' (hint: did you mean 'alcohol'?)" in done.stderr
    assert "wines.yaml" in done.stderr and ("7:5" in done.stderr or "line 7, column 5" in done.stderr)


@pytest.mark.parametrize("command", ["explain", "preview"])
def test_a_wrong_label_names_the_nearest_column(table, command):
    done = run(command, table(["StandardScaler"], source=", label: knid"))
    assert done.returncode != 0 and "'knid'" in done.stderr and "'kind'" in done.stderr


def test_a_table_without_a_label_shows_all_columns(table):
    file = table(["OneHotEncoder"], source="")
    text = good("preview", file).stdout
    assert "kind_a" in text and "\n  label" not in text
    assert "label none" in good("explain", file).stdout


def test_a_missing_table_is_named(table):
    file = table(["StandardScaler"])
    os.unlink("wines.csv")
    done = run("preview", file)
    assert done.returncode != 0 and "wines.csv' is not there" in done.stderr
    assert "nothing at" in good("explain", file).stdout


def test_the_form_of_a_preview_must_fit_the_data(table, photos, pipeline):
    done = run("preview", table(["StandardScaler"]), "-o", "sheet.png")
    assert done.returncode == 2 and "hint: no -o" in done.stderr
    done = run("preview", pipeline(photos))
    assert done.returncode == 2 and "-o sheet.png" in done.stderr


def write_features(tmp_path, photos, n=4, std="false"):
    file = tmp_path / "pixels.yaml"
    file.write_text(FEATURES.format(path=photos, n=n, std=std))
    return file


def cell(sheet, row, column, tile, heights):
    """The middle of a cell's picture."""
    left, top = 10 + column * (tile + 10), heights[row]
    return np.asarray(sheet.convert("RGB"), dtype=float)[top + tile // 4:top + 3 * tile // 4, left + tile // 4:left + 3 * tile // 4]


def row_tops(sheet, tile):
    """Where rows of cells begin: at the left edge of each first cell the picture's grey frame or picture starts behind white."""
    strip = np.asarray(sheet.convert("L"))[:, 10:10 + tile]
    full = (strip < 250).mean(axis=1) > 0.9
    starts = [y for y in range(1, len(full)) if full[y] and not full[y - 1]]
    return [y for y in starts if full[y:y + tile // 2].mean() > 0.9]


def test_a_sheet_of_features_shows_the_mean_image_and_what_pca_keeps(photos, tmp_path):
    """With all components nothing is lost: a sample comes back as it went in; the mean is the mean."""
    tile = 64
    file = write_features(tmp_path, photos, n="null", std="true")
    good("preview", file, "-o", tmp_path / "sheet.png", "--tile", tile, "--samples", 2, "--state", tmp_path / "state")
    sheet = decode((tmp_path / "sheet.png").read_bytes())
    assert sheet.size[0] == 6 * (tile + 10) + 10
    tops = row_tops(sheet, tile)
    assert len(tops) == 4  # mean, curve and 16 components in three rows; two samples in one
    assert np.abs(cell(sheet, 0, 0, tile, tops).mean() - photo_mean(photos)) < 3
    went, came = cell(sheet, len(tops) - 1, 1, tile, tops), cell(sheet, len(tops) - 1, 2, tile, tops)
    assert went.std() > 5 and np.abs(went - came).max() <= 1


def photo_mean(photos):
    from PIL import Image
    values = [np.asarray(Image.open(p).convert("RGB").resize((16, 12), Image.BILINEAR), dtype=float)[3:9, 4:12].mean()
              for p in sorted(photos.rglob("*")) if p.is_file()]
    return np.mean(values)


def test_a_sheet_without_pca_shows_the_features(photos, tmp_path):
    """No component, so two rows: the mean image alone, then samples with their numbers where a picture would be."""
    file = write_features(tmp_path, photos)
    file.write_text(file.read_text().replace("  - PCA: {n_components: 4}\n", "  - SelectColumns: {columns: [p0, p1]}\n"))
    good("preview", file, "-o", tmp_path / "s.png", "--tile", 64, "--samples", 2, "--state", tmp_path / "state")
    sheet = decode((tmp_path / "s.png").read_bytes())
    tops = row_tops(sheet, 64)
    assert len(tops) == 2 and cell(sheet, 0, 0, 64, tops).std() > 1
    assert cell(sheet, 0, 1, 64, tops).min() == 255 and cell(sheet, 1, 2, 64, tops).std(axis=(0, 1)).max() == 0


def test_a_sheet_of_features_is_the_same_each_time_and_fits_once(photos, tmp_path):
    file = write_features(tmp_path, photos)
    for name in ("a.png", "b.png"):
        good("preview", file, "-o", tmp_path / name, "--samples", 3, "--state", tmp_path / "state")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert len(list((tmp_path / "state" / "artifacts").glob("*.npz"))) == 2


def test_added_copies_show_the_extra_ops_in_a_preview(photos, pipeline, tmp_path):
    """The rare class is drawn again; its copies differ from the first only by the extra op, which blackens."""
    file = pipeline(photos, ops="  - Resize: {size: [64, 64]}\n", copies=1)
    text = file.read_text().replace(
        "ops:", "rebalance:\n  RandomOverSampler:\n    augment_minority:\n      - ColorJitter: {brightness: [0, 0]}\nops:")
    file.write_text(text)
    tile = 64
    good("preview", file, "-o", tmp_path / "s.png", "--class", "oak", "--samples", 1, "--copies", 3, "--tile", tile)
    sheet = decode((tmp_path / "s.png").read_bytes())
    top = row_tops(sheet, tile)[-1:]
    cells = [cell(sheet, 0, column, tile, top).mean() for column in (1, 2, 3)]
    assert sum(c < 1 for c in cells) == 2 and sum(c > 5 for c in cells) == 1
