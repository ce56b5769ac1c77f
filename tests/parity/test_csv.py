"""The CSV reader against Python's csv module, strict, on generated tables: the same rows, the same rows that cannot be read,
and the line and offset where each begins. SHARDMILL_CSV_TABLES says how many (make csv-fuzz: 10^5)."""
import csv
import io
import os
import pathlib
import random
import struct
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
CSV_ROWS = pathlib.Path(os.environ.get("BUILD", ROOT / "build")) / "tools" / "csv_rows"
TABLES = int(os.environ.get("SHARDMILL_CSV_TABLES", "4000"))
SEED = int(os.environ.get("SHARDMILL_CSV_SEED", "1"))
BAD, END = 2**32 - 1, 2**32 - 2
SOUP = ['"', '"', '""', ",", ",", "\n", "\r\n", "\r", "a", " ", "é", "1.5", "日本", "\t", ";", "'", "\\", "x" * 70]


def soup(rng, delimiter):
    """Anything: most of it is no table at all."""
    return "".join(rng.choice(SOUP) for _ in range(rng.randrange(60))).replace(",", delimiter)


def written(rng, delimiter):
    """What Python's own writer makes of arbitrary cells, some bytes perhaps lost or doubled."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=rng.choice(["\n", "\r\n", "\r"]),
                        quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    columns = rng.randrange(1, 9)
    for _ in range(rng.randrange(20)):
        writer.writerow([rng.choice([rng.random(), rng.randrange(10**6), "", soup(rng, delimiter), "plain"])
                         for _ in range(columns)])
    text = out.getvalue()
    for _ in range(rng.choice([0, 0, 1, 3])):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(["", '"', "\n", delimiter]) + text[at + rng.randrange(2):]
    return text


def numbers(rng, delimiter):
    """A long table of numbers, as most are."""
    columns = rng.randrange(1, 30)
    end = rng.choice(["\n", "\r\n"])
    return end.join(delimiter.join(f"{rng.gauss(0, 1):.6g}" for _ in range(columns))
                    for _ in range(rng.randrange(1, 200))) + rng.choice(["", end])


def python_rows(text, delimiter, skip=False):
    """(fields or None, line) of each row; a last None in place of what follows a quote that never ends."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=skip)
    rows, ended = [], False
    while not ended:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as e:
            ended = "unexpected end of data" in str(e)
            row = None
        if row != []:
            rows.append((row, line))
    return rows, ended


def our_rows(tables):
    frames = b"".join(struct.pack("<IBB", len(b), ord(d) | skip << 7, size) + b for b, d, size, skip in tables)
    out = subprocess.run([CSV_ROWS], input=frames, stdout=subprocess.PIPE, check=True).stdout
    at = 0
    for _ in tables:
        rows = []
        while True:
            (n,) = struct.unpack_from("<I", out, at)
            at += 4
            if n == END:
                break
            line, offset = struct.unpack_from("<IQ", out, at)
            at += 12
            fields = None if n == BAD else []
            for _ in range(0 if n == BAD else n):
                (length,) = struct.unpack_from("<I", out, at)
                fields.append(out[at + 4:at + 4 + length].decode())
                at += 4 + length
            rows.append((fields, line, offset))
        yield rows
    assert at == len(out)


def line_starts(data):
    """Byte offset of each line; CR LF, LF and CR end one."""
    starts, i = [0], 0
    while i < len(data):
        i += 2 if data[i:i + 2] == b"\r\n" else 1
        if data[i - 1:i] in (b"\n", b"\r"):
            starts.append(i)
    return starts


def check(text, delimiter, data, ours, skip=False):
    theirs, ended = python_rows(text, delimiter, skip)
    if ended:  # Python stops at a quote that never ends; the reader goes on at the next line
        assert ours[len(theirs) - 1][0] is None, data
        ours = ours[:len(theirs)]
    assert [(fields, line) for fields, line, _ in ours] == theirs, data
    starts = line_starts(data)
    bom = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    for _, line, offset in ours:
        assert offset == (bom if line == 1 else starts[line - 1]), data


def test_rows_are_pythons():
    rng = random.Random(SEED)
    done = 0
    while done < TABLES:
        batch = []
        for _ in range(min(2000, TABLES - done)):
            delimiter = rng.choice(",,,;\t| ")
            text = rng.choice([soup, soup, written, written, numbers] if rng.random() < 0.4 else [soup, written])(
                rng, delimiter)
            bom = rng.random() < 0.05
            data = (b"\xef\xbb\xbf" if bom else b"") + text.encode()
            batch.append((text, delimiter, data, delimiter != " " and rng.random() < 0.3))
        ours = our_rows([(data, delimiter, rng.choice([1, 2, 16, 64, 65, 200, 255]), skip)
                         for _, delimiter, data, skip in batch])
        for (text, delimiter, data, skip), rows in zip(batch, ours):
            check(text, delimiter, data, rows, skip)
        done += len(batch)


def test_rows_that_cross_the_buffer_are_pythons():
    rng = random.Random(SEED)
    text = "".join(numbers(rng, ",") + "\n" + written(random.Random(5), ",").replace('"', "") + "\n" for _ in range(300))
    data = text.encode()
    assert len(data) > 3 * (256 << 10)
    (ours,) = our_rows([(data, ",", 255, False)])
    check(text, ",", data, ours)
