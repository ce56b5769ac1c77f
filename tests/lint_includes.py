#!/usr/bin/python3
"""Checks that includes go one way: cli -> client, workers, broker, pipelines/lang; workers -> pipelines/lang; broker,
workers and client -> proto, lib; lib -> nothing of ours but proto's messages. docs/DESIGN.md says why."""
import glob
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MAY = {
    "lib": {"lib"},
    "broker": {"broker", "lib"},
    "pipelines": {"pipelines", "lib"},
    "workers": {"workers", "pipelines", "lib"},
    "client": {"client", "lib"},
    "cli": {"cli", "client", "workers", "broker", "pipelines", "lib"},
}
# what the broker must never need: pixels, YAML, linear algebra
BROKER_NEVER = re.compile(r"<(vips|libfyaml|cblas|lapacke|jpeglib)")

bad = []
for room, may in MAY.items():
    for path in sorted(glob.glob(f"{ROOT}/{room}/**/*.[ch]", recursive=True)):
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                ours = re.match(r'#include "(\w+)/', line)
                where = f"{os.path.relpath(path, ROOT)}:{number}"
                if ours and ours.group(1) not in may:
                    bad.append(f"{where}: {room} must not include {ours.group(1)}")
                if room == "broker" and BROKER_NEVER.search(line):
                    bad.append(f"{where}: the broker never touches a sample")
print("\n".join(bad) or "includes go one way")
sys.exit(bool(bad))
