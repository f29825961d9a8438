"""The man pages and the completion have every command and option that --help lists, and no other.

    manual_test.py REPRISE FOLDER      the folder that tools/manual has filled
"""
import gzip
import pathlib
import re
import subprocess
import sys

reprise, folder = sys.argv[1], pathlib.Path(sys.argv[2])


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: expected {sorted(wanted)}, found {sorted(found)}")


def told(path):
    """What --help of a command lists: commands, options."""
    text = subprocess.run([reprise, *path, "--help"], capture_output=True, text=True, check=True).stdout
    commands = text.partition("\nSubcommands:\n")[2].partition("\n\n")[0]
    options = re.findall(r"^  (-[\w,-]+)", text.partition("\nOptions:\n")[2].partition("\nSubcommands:\n")[0], re.MULTILINE)
    return re.findall(r"^  (\S+)", commands, re.MULTILINE), {name for names in options for name in names.split(",")}


def written(path):
    """The same as the man page has it."""
    page = folder / "man1" / ("-".join(["reprise", *path]) + ".1.gz")
    text = gzip.decompress(page.read_bytes()).decode().replace("\\-", "-")
    part = text.partition("\n.SH OPTIONS\n")[2].partition("\n.SH ")[0]
    options = re.findall(r"^\.TP\n\.B (.*)$", "\n" + part, re.MULTILINE)
    names = {name for line in options for name in re.findall(r"(?<![\w-])--?\w[\w-]*", line)}
    commands = text.partition("\n.SH COMMANDS\n")[2].partition("\n.SH ")[0]
    prefix = "-".join(["reprise", *path]) + "-"
    return [name.removeprefix(prefix) for name in re.findall(r"^\.BR (\S+) ", commands, re.MULTILINE)], names


def completed(*words):
    """What the completion offers for the last word, as bash asks it."""
    script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _reprise; printf "%s\\n" "${COMPREPLY[@]}"')
    command = ["bash", "-c", script, "bash", folder / "bash/reprise", "reprise", *words]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def main():
    pages, todo = set(), [[]]
    while todo:
        path = todo.pop()
        commands, options = told(path)
        pages.add("-".join(["reprise", *path]) + ".1.gz")
        if "--help" not in options or (not path and "run" not in commands):
            sys.exit(f"`reprise {' '.join(path)} --help`: expected options and commands, found {options} {commands}")
        listed, described = written(path)
        expect(f"man page, commands of {path}", listed, commands)
        expect(f"man page, options of {path}", described, options)
        expect(f"completion, options of {path}", completed(*path, "-"), options)
        if commands:
            expect(f"completion, commands of {path}", completed(*path, ""), set(commands))
        todo += [[*path, command] for command in commands]
    expect("man pages", {page.name for page in (folder / "man1").iterdir()}, pages)
    expect("completion of a choice", completed("run", "--durability", "l"), {"lazy"})
    expect("completion behind --", completed("run", "--", "-"), set())
    print(f"{len(pages)} pages")


main()
