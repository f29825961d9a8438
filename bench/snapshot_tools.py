#!/usr/bin/env python3
"""A snapshot of a directory, a second one after a hundredth of it has changed, and the directory restored:
by reprise and by the tools one would use instead, in turn, round after round, on one filesystem.

    REPRISE=build/release/tools/cli/reprise bench/snapshot_tools.py [--rounds 3] [--work DIR] [TREE...]

TREE is `small` (50,000 files of some 1.5 kB in 5,000 directories), `sparse` (a file of 4 GiB that holds 64 MiB),
`empty` (1,000,000 empty files in 1,000 directories), or a directory, of which a copy is taken. Prints a table
for each, of medians: seconds, megabytes on the disk, and the most memory that a process of it took (never
less than this script's own, some 20 MB, which each process begins as a copy of). What is restored is compared
with the original. A tool that is not installed is said to be missing; one that fails ends it.
"""
import argparse
import dataclasses
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

REPRISE = os.environ.get("REPRISE", "reprise")
STEPS = ("first", "second", "restore")


@dataclasses.dataclass
class Tool:
    """Commands of a shell: $SOURCE is the directory, $KEEP what the tool has, $OUT where it restores to."""

    name: str
    needs: list[str]
    first: str
    second: str
    restore: str


TOOLS = [
    Tool("reprise", [REPRISE],
         '"$REPRISE" snapshot import --max-entries 0 --max-size 0 "$KEEP/s" "$SOURCE"',
         '"$REPRISE" snapshot import --max-entries 0 --max-size 0 --over "$KEEP/s" "$SOURCE"',
         '"$REPRISE" snapshot export "$KEEP/s" "$OUT"'),
    Tool("tar, zstd -1", ["tar", "zstd"],
         'tar -C "$SOURCE" -S -cf - . | zstd -1 -q -o "$KEEP/1"',
         'tar -C "$SOURCE" -S -cf - . | zstd -1 -q -o "$KEEP/2"',
         'mkdir "$OUT" && zstd -q -dc "$KEEP/2" | tar -C "$OUT" -xf -'),
    Tool("tar, tar", ["tar"],
         'mkdir "$KEEP/1" && tar -C "$SOURCE" -S -cf - . | tar -C "$KEEP/1" -xf -',
         'mkdir "$KEEP/2" && tar -C "$SOURCE" -S -cf - . | tar -C "$KEEP/2" -xf -',
         'mkdir "$OUT" && tar -C "$KEEP/2" -S -cf - . | tar -C "$OUT" -xf -'),
    Tool("cp -a --reflink=auto", ["cp"],
         'cp -a --reflink=auto "$SOURCE" "$KEEP/1"',
         'cp -a --reflink=auto "$SOURCE" "$KEEP/2"',
         'cp -a --reflink=auto "$KEEP/2" "$OUT"'),
    Tool("rsync -a", ["rsync"],
         'rsync -aS "$SOURCE/" "$KEEP/1"',
         'rsync -aS --delete "$SOURCE/" "$KEEP/1"',
         'rsync -aS "$KEEP/1/" "$OUT"'),
    Tool("restic", ["restic"],
         'restic -q init && cd "$SOURCE" && restic -q backup .',
         'cd "$SOURCE" && restic -q backup .',
         'restic -q restore latest --target "$OUT"'),
    Tool("casync", ["casync"],
         'casync make --store="$KEEP/c" "$KEEP/1.caidx" "$SOURCE" >"$KEEP/log"',
         'casync make --store="$KEEP/c" "$KEEP/2.caidx" "$SOURCE" >"$KEEP/log"',
         'casync extract --store="$KEEP/c" "$KEEP/2.caidx" "$OUT" >"$KEEP/log"'),
]


def run(command, environment):
    """Seconds, and the most memory of a process of it in bytes."""
    begin = time.monotonic()
    process = subprocess.Popen(["bash", "-c", "set -eo pipefail; " + command], env=os.environ | environment,
                               stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"exit status {process.returncode}: {command}")
    return seconds, usage.ru_maxrss * 1024


def bytes_in(folder):
    return int(subprocess.run(["du", "-s", "-B1", folder], check=True, capture_output=True,
                              text=True).stdout.split()[0])


class Small:
    """Half of the bytes of a file are random, as text and code is half as long when it is compressed."""

    title = "50,000 files of some 1.5 kB"

    def make(self, folder):
        chance = random.Random(1)
        for directory in range(5_000):
            path = folder / f"package{directory // 50}" / f"d{directory % 50}"
            path.mkdir(parents=True)
            for file in range(10):
                (path / f"{file}.js").write_bytes(self.text(chance))

    @staticmethod
    def text(chance):
        return chance.randbytes(min(200_000, int(chance.lognormvariate(6, 1)))).hex().encode()

    def change(self, folder, number):
        chance = random.Random(number)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        for path in chance.sample(files, max(1, len(files) // 100)):
            path.write_bytes(self.text(chance))


class Copy(Small):
    def __init__(self, source):
        self.source = source
        self.title = f"`{source.name}`"

    def make(self, folder):
        subprocess.run(["cp", "-a", f"{self.source}/.", folder], check=True)
        files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        self.title += f": {len(files):,} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB"


class Sparse:
    title = "a file of 4 GiB that holds 64 MiB"
    PIECE = 64 << 10

    def make(self, folder):
        with open(folder / "sparse", "wb") as file:
            file.truncate(4 << 30)
        self.write(folder, random.Random(1), 1024)

    def change(self, folder, number):
        self.write(folder, random.Random(number), 10)

    def write(self, folder, chance, pieces):
        with open(folder / "sparse", "r+b") as file:
            for place in random.Random(1).sample(range((4 << 30) // self.PIECE), 1024)[:pieces]:
                file.seek(place * self.PIECE)
                file.write(chance.randbytes(self.PIECE))


class Empty:
    """The change: a hundredth of the directories get other files."""

    title = "1,000,000 empty files"

    def make(self, folder):
        for directory in range(1_000):
            self.fill(folder / f"d{directory}", "f")

    def change(self, folder, number):
        for directory in range(10):
            shutil.rmtree(folder / f"d{directory}")
            self.fill(folder / f"d{directory}", f"g{number}-")

    @staticmethod
    def fill(folder, prefix):
        folder.mkdir()
        for file in range(1_000):
            (folder / f"{prefix}{file}").touch()


def measure(tree, tools, rounds, work):
    source = work / "source"
    source.mkdir()
    tree.make(source)
    seconds = {(tool.name, step): [] for tool in tools for step in STEPS}
    sizes = {(tool.name, step): [] for tool in tools for step in STEPS[:2]}
    memory = dict.fromkeys((tool.name for tool in tools), 0)
    for number in range(1, rounds + 1):
        where = {tool.name: work / f"keep{i}" for i, tool in enumerate(tools)}
        for folder in where.values():
            folder.mkdir()
        for step in STEPS:
            if step == "second":
                tree.change(source, number)
            for tool in tools:
                keep, out = where[tool.name], work / "out"
                subprocess.run(["sync"], check=True)  # what the one before has left to be written
                took, most = run(getattr(tool, step), {
                    "SOURCE": str(source), "KEEP": str(keep), "OUT": str(out), "REPRISE": REPRISE,
                    "RESTIC_REPOSITORY": str(keep / "r"), "RESTIC_PASSWORD": "measured",
                    "RESTIC_CACHE_DIR": str(keep / "cache")})
                seconds[tool.name, step].append(took)
                memory[tool.name] = max(memory[tool.name], most)
                if step == "restore":
                    run('diff -r --no-dereference "$SOURCE" "$OUT"', {"SOURCE": str(source), "OUT": str(out)})
                    shutil.rmtree(out)
                else:
                    sizes[tool.name, step].append(bytes_in(keep))
        for folder in where.values():
            shutil.rmtree(folder)
    shutil.rmtree(source)
    print(f"\n{tree.title}; rounds: {rounds}\n")
    print("| | first, s | MB | second, s | MB more | restored, s | memory, MB |\n|---|---|---|---|---|---|---|")
    for tool in tools:
        first, second, restore = (statistics.median(seconds[tool.name, step]) for step in STEPS)
        kept = statistics.median(sizes[tool.name, "first"])
        more = statistics.median(b - a for a, b in zip(sizes[tool.name, "first"], sizes[tool.name, "second"]))
        print(f"| {tool.name} | {first:.2f} | {kept / 1e6:.1f} | {second:.2f} | {more / 1e6:.1f} | {restore:.2f} "
              f"| {memory[tool.name] / 1e6:.0f} |", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("trees", nargs="*", default=["small", "sparse", "empty"], metavar="TREE")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--work", help="where files are made; the filesystem that is measured")
    options = arguments.parse_args()
    tools = []
    for tool in TOOLS:
        missing = [need for need in tool.needs if shutil.which(need) is None]
        if missing:
            print(f"missing: {', '.join(missing)}", file=sys.stderr)
        else:
            tools.append(tool)
    known = {"small": Small, "sparse": Sparse, "empty": Empty}
    for name in options.trees:
        with tempfile.TemporaryDirectory(prefix="reprise-bench-", dir=options.work) as work:
            if name in known:
                tree = known[name]()
            elif pathlib.Path(name).is_dir():
                tree = Copy(pathlib.Path(name).resolve())
            else:
                sys.exit(f"{name}: expected small, sparse, empty or a directory")
            measure(tree, tools, options.rounds, pathlib.Path(work))


if __name__ == "__main__":
    main()
