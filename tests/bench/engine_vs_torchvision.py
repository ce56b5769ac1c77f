#!/usr/bin/python3
"""Decode + RandomResizedCrop(224) + RandomHorizontalFlip to a uint8 CHW tensor: the engine against torchvision on PIL images,
one thread each, the same files, alternating passes in one run. Prints images a second of both and the ratio of the medians."""
import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from PIL import Image
from torchvision import transforms

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PIPELINE = """version: 1
name: bench
seed: 1
source: {format: folder, path: .}
ops:
  - RandomResizedCrop: {size: 224}
  - RandomHorizontalFlip: {p: 0.5}
output: {layout: NCHW, dtype: uint8}
expand: {encode: tensor}
"""

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", help="a folder of JPEG files, searched at any depth")
parser.add_argument("--passes", type=int, default=7)
parser.add_argument("--tool", default=os.path.join(ROOT, os.environ.get("BUILD", "build"), "tools/engine_run"))
parser.add_argument("--at-least", type=float, default=0, help="exit 1 when the ratio is lower")
options = parser.parse_args()

files = sorted(
    os.path.join(folder, name)
    for folder, _, names in os.walk(options.folder)
    for name in names
    if name.lower().endswith((".jpg", ".jpeg"))
)
if not files:
    sys.exit(f"no JPEG files in '{options.folder}'")
contents = []
for path in files:
    with open(path, "rb") as file:
        contents.append(file.read())

torch.set_num_threads(1)
chain = transforms.Compose(
    [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
)


def torchvision_pass():
    begin = time.monotonic()
    for content in contents:
        chain(Image.open(io.BytesIO(content)).convert("RGB"))
    return time.monotonic() - begin


with tempfile.NamedTemporaryFile("w", suffix=".yaml") as pipeline:
    pipeline.write(PIPELINE)
    pipeline.flush()
    command = [options.tool, pipeline.name, "--bench", str(options.passes + 1), *files]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as engine:

        def engine_pass():
            engine.stdin.write("\n")
            engine.stdin.flush()
            return float(engine.stdout.readline())

        engine_pass(), torchvision_pass()  # warm
        times = [(engine_pass(), torchvision_pass()) for _ in range(options.passes)]
        engine.stdin.close()

ours, theirs = (statistics.median(column) for column in zip(*times))
ratios = sorted(t / o for o, t in times)
print(f"{len(files)} files, {sum(map(len, contents)) / len(contents) / 1000:.0f} kB on average, {options.passes} passes")
print(f"engine       {len(files) / ours:8.0f} images a second")
print(f"torchvision  {len(files) / theirs:8.0f} images a second")
print(f"ratio        {theirs / ours:8.2f}   (passes: {ratios[0]:.2f} to {ratios[-1]:.2f})")
sys.exit(theirs / ours < options.at_least)
