# SPDX-License-Identifier: Apache-2.0
"""A results file: one JSON object, each run on a line of its own, replaced whole each time."""

import json
import os
from pathlib import Path

LISTS = ("runs", "noise", "scenarios", "not_run")


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def text_of(data):
    """Lists have a line for each entry, so that two results files can be compared line by line."""
    fields = []
    for name, value in data.items():
        if name in LISTS:
            lines = ",\n".join("  " + compact(entry) for entry in value)
            fields.append(f' "{name}": [\n{lines}\n ]' if value else f' "{name}": []')
        elif isinstance(value, dict) and name in ("subjects", "curves", "summary"):
            lines = ",\n".join(f"  {compact(key)}: {compact(entry)}"
                               for key, entry in value.items())
            fields.append(f' "{name}": {{\n{lines}\n }}' if value else f' "{name}": {{}}')
        else:
            fields.append(f" {compact(name)}: {compact(value)}")
    return "{\n" + ",\n".join(fields) + "\n}\n"


class Results:
    """The data, and the file that they are in."""

    def __init__(self, path, data):
        self.path, self.data = Path(path), data
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def save(self):
        new = self.path.with_name(self.path.name + ".new")
        new.write_text(text_of(self.data), encoding="utf-8")
        os.replace(new, self.path)


def read(path):
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    if data.get("schema") != 1:
        raise ValueError(f"{path}: schema {data.get('schema')} is not known here")
    return data
