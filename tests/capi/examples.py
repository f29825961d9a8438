"""The examples do what their first lines say.

    examples.py minimal MINIMAL_C MINIMAL_CPP | lua LUA_HOST REPRISE | pool WORKER_POOL REPRISE |
                ctypes LIBRARY | proc_open REPRISE
"""
import os
import pathlib
import subprocess
import sys
import tempfile

examples = pathlib.Path(__file__).parent / "../../examples"


def start(*command, **options):
    return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def expect(process, output, errors="", status=0):
    """How it ends and what it says; a part of that will do of what it complains of."""
    command = " ".join(process.args)
    said, complained = process.communicate(timeout=50)
    as_expected = complained == "" if errors == "" else errors in complained
    if (process.returncode, said) != (status, output) or not as_expected:
        sys.exit(f"{command}: expected status {status},\n{output}{errors}\nfound {process.returncode} and\n{said}{complained}")
    print(f"$ {command}\n{said}{complained}", end="")


def minimal(folder, in_c, in_cpp):
    expect(start(in_c), "17 bytes: hello from 0.1.0\n"
           "as it should be: reprise_open /no/such/file: No such file or directory (ENOENT)\n")
    expect(start(in_cpp, folder), "hello: hi\nreport: done\n")


def lua(folder, host, reprise):
    scripts, store, socket = examples / "lua/scripts", f"{folder}/store", f"unix:{folder}/socket"
    leader = start(host, "--listen", socket, store, scripts / "articles.lua", scripts / "modules.lua", stdin=subprocess.PIPE)
    articles = "1.txt\tarticle 1\n2.txt\tarticle 2\n3.txt\tarticle 3\nindex\t1.txt\n"
    expect(start(host, "--follow", socket, "done", scripts / "reader.lua"),
           f"{articles}hello, lua\n\nfalse\t/half: No such file or directory\n/new: Read-only file system\t30\n")
    expect(leader, "")
    # One of two does not do well: the other one's files are there, and none of its own.
    expect(start(host, store, scripts / "fails.lua", scripts / "articles.lua"), "", "fails.lua:3: changed its mind", status=1)
    expect(start(reprise, "ls", f"{store}:/"), "articles\ngreeting\nlib\ntmp\nvalue.lua\n")
    branches = start(reprise, "branches", store)
    if branches.communicate()[0].split() != ["main"]:
        sys.exit("expected that all branches are gone again")


def pool(folder, host, reprise):
    for way in "shared", "apart":
        store = f"{folder}/{way}"
        expect(start(host, way, store, 4, 100), "100 results by 4 workers\n")
        expect(start(reprise, "cat", f"{store}:/results/99"), "9801")
    expect(start(host, "else", folder, 1, 1), "", "usage: worker_pool", status=2)


def ctypes(folder, library):
    expect(start(sys.executable, examples / "ctypes_host.py", library, f"{folder}/store"),
           "good: hi, good\nhello: hi\nas it should be: reprise_read_file /bad: No such file or directory (ENOENT)\n")


def proc_open(folder, reprise):
    environment = dict(os.environ, PATH=f"{pathlib.Path(reprise).parent}:{os.environ['PATH']}")
    store = f"{folder}/store"
    expect(start(reprise, "run", "--store", store, "--", "php", (examples / "php/parent.php").resolve(), env=environment), """\
child: done
parent: it ended with 1; what it did was not seen yet, and now there is nothing
child: done
parent: it ended with 0; what it did was not seen yet, and now there is WELCOME
cache page
""")
    log = start(reprise, "log", store, "--path", "/cache/page")
    if "[child-" not in log.communicate()[0]:
        sys.exit("expected the child's label at what it did, in the parent's history")


with tempfile.TemporaryDirectory() as folder:
    {"minimal": minimal, "lua": lua, "pool": pool, "ctypes": ctypes, "proc_open": proc_open}[sys.argv[1]](folder, *sys.argv[2:])
