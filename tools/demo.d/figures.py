#!/usr/bin/env python3
"""Figures for tools/demo, from the JSON that reprise and the demo's PHP print.

  figures.py get PATH                            the value at a dotted path of the object on stdin
  figures.py at_least MARK NUMBERS PAGE          does the page show what A counted at the mark, or later?
  figures.py equal MARK NUMBERS PAGE             does it show exactly that?
  figures.py steps LOG                           operations and bytes from mark to mark
  figures.py hottest LOG                         the paths most operations went to
  figures.py table OPERATIONS BYTES MS BYTES MS  what a catch-up and a full overwrite took

Exit status 0, or 1 when the answer is no.
"""

import collections
import json
import sys


def size(count):
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}" if count < 100 else f"{count:.0f} {unit}"
        count /= 1000
    raise AssertionError


def counted_at(mark, path):
    with open(path, encoding="utf-8") as file:
        for line in file:
            numbers = json.loads(line)
            if numbers.pop("mark") == mark:
                return numbers
    raise SystemExit(f"figures: A told no numbers at the mark {mark}")


def page_of(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def get(path):
    value = json.load(sys.stdin)
    for part in path.split("."):
        if not isinstance(value, dict) or value.get(part) is None:
            return 1
        value = value[part]
    print(value)
    return 0


def at_least(mark, numbers, page):
    if mark == "finished":  # nothing comes after it
        return equal(mark, numbers, page)
    counted, shown = counted_at(mark, numbers), page_of(page)
    return 0 if all(shown[key] >= counted[key] for key in ("posts", "views")) else 1  # these only grow


def equal(mark, numbers, page):
    counted, shown = counted_at(mark, numbers), page_of(page)
    different = {key: (counted[key], shown.get(key)) for key in counted if counted[key] != shown.get(key)}
    for key, (a, b) in different.items():
        print(f"      {key}: A counted {a}, B shows {b}")
    return 1 if different else 0


def operations_of(path):
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def steps(path):
    print(f"  {'up to the mark':<20}{'operations':>12}{'written':>12}")
    count = written = total_count = total_written = 0
    for operation in operations_of(path):
        if operation.get("mark"):
            print(f"  {operation['mark']:<20}{count:>12,}{size(written):>12}")
            count = written = 0
            continue
        length = operation["length"] if operation["operation"] == "write" else 0
        count, written = count + 1, written + length
        total_count, total_written = total_count + 1, total_written + length
    print(f"  {'in all':<20}{total_count:>12,}{size(total_written):>12}")
    return 0 if total_count else 1


def hottest(path):
    count, written = collections.Counter(), collections.Counter()
    for operation in operations_of(path):
        name = operation.get("path")
        if name:
            count[name] += 1
            written[name] += operation["length"] if operation["operation"] == "write" else 0
    print(f"  {'operations':>12}{'written':>12}   path")
    for name, operations in count.most_common(6):
        print(f"  {operations:>12,}{size(written[name]):>12}   {name}")
    return 0 if count else 1


def table(operations, journal_bytes, journal_ms, whole_bytes, whole_ms):
    print(f"  {'':<34}{'operations':>12}{'bytes':>12}{'time':>12}")
    print(f"  {'by what B had missed':<34}{int(operations):>12,}{size(int(journal_bytes)):>12}"
          f"{float(journal_ms):>9.1f} ms")
    print(f"  {'by full overwrite':<34}{'':>12}{size(int(whole_bytes)):>12}{float(whole_ms):>9.1f} ms")
    return 0


def main():
    commands = {"get": get, "at_least": at_least, "equal": equal, "steps": steps, "hottest": hottest, "table": table}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    return commands[sys.argv[1]](*sys.argv[2:])


sys.exit(main())
