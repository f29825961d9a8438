"""Runs inside an instance that will be killed: checks what an earlier one left, then writes, and logs outside what is safe.

    crash_writer.py LOG check|write WORKLOAD…

A workload is one of `python`, `php` (databases of SQLite in rollback and WAL mode), `git`, `files`. Each writes in a process of
its own. A line of LOG says that something was on the disk when the line was written, because what makes it so had returned:
"wal N", "rollback N", "php-wal N", "php-rollback N", "commit HASH", "record N", "replaced N", "mapped N", "through N". With
`check` nothing is written after checking. Prints "checked" when all that LOG promises is there and whole; exits 1 and says
what is missing otherwise.
"""
import mmap
import os
import pathlib
import random
import sqlite3
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
NAMES, PAGES, UNSYNCED, PAGE_BYTES = 7, 16, 3, 4096


def sync_directory(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def read_log(path):
    promised = {}
    for line in pathlib.Path(path).read_text().splitlines():
        kind, what = line.split()
        promised.setdefault(kind, []).append(what)
    return promised


class Databases:
    """Transaction k inserts k twice: half a transaction would show."""

    MODES = {"wal": "PRAGMA synchronous = FULL", "rollback": "PRAGMA synchronous = EXTRA"}  # EXTRA: the directory too
    PREFIX = ""

    def __init__(self, promised):
        self.last = {mode: self.check(mode, promised.get(self.PREFIX + mode, ["0"])[-1]) for mode in self.MODES}

    def open(self, mode):
        connection = sqlite3.connect(f"{self.PREFIX}{mode}.db", isolation_level=None)
        connection.execute(f"PRAGMA journal_mode = {'wal' if mode == 'wal' else 'delete'}")
        connection.execute(self.MODES[mode])
        connection.execute("CREATE TABLE IF NOT EXISTS t (k INTEGER PRIMARY KEY, half INTEGER, text TEXT)")
        return connection

    def check(self, mode, promised):
        connection = self.open(mode)
        name = f"{self.PREFIX}{mode}.db"
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], f"{name} is damaged"
        count, distinct, last = connection.execute("SELECT count(*), count(DISTINCT half), max(half) FROM t").fetchone()
        last = last or 0
        assert count == 2 * last and distinct == last, f"{name} has {count} rows up to transaction {last}"
        assert last >= int(promised), f"{name} ends at transaction {last}, {promised} was on the disk"
        connection.close()
        return last

    def write(self, safe):
        connections = {mode: self.open(mode) for mode in self.MODES}
        while True:
            for mode, connection in connections.items():
                self.last[mode] += 1
                connection.execute("BEGIN")
                for _ in range(2):
                    connection.execute("INSERT INTO t (half, text) VALUES (?, ?)", (self.last[mode], "x" * (self.last[mode] * 53 % 2000)))
                connection.execute("COMMIT")
                safe(f"{mode} {self.last[mode]}")


class PhpDatabases(Databases):
    """The same, written by PHP."""

    PREFIX = "php-"

    def write(self, safe):
        os.execvp("php", ["php", str(HERE / "crash_writer.php"), sys.argv[1], str(self.last["wal"]), str(self.last["rollback"])])


class Git:
    def __init__(self, promised):
        commits = promised.get("commit", [])
        if not os.path.isdir("repository/.git"):
            assert not commits, "the repository is gone"
            os.makedirs("repository", exist_ok=True)
            self.git("init", "-q", "-b", "main", ".")
        for lock in pathlib.Path("repository/.git").rglob("*.lock"):
            lock.unlink()  # of a git that was killed
        # The index is a cache of git's that a kill may leave half way between two commits.
        fsck = subprocess.run(["git", "fsck", "--full", "--strict"], cwd="repository", capture_output=True, text=True)
        assert fsck.returncode == 0, f"git fsck: {fsck.stdout}{fsck.stderr}"
        if commits:
            self.git("merge-base", "--is-ancestor", commits[-1], "HEAD")
        self.git("rev-list", "--objects", "--all")
        self.turn = len(commits)

    def git(self, *words):
        return subprocess.run(["git", "-c", "core.fsync=all", "-c", "gc.auto=0", "-c", "user.name=W", "-c", "user.email=w@example.org",
                               *words], cwd="repository", check=True, capture_output=True, text=True).stdout.strip()

    def write(self, safe):
        while True:
            self.turn += 1
            pathlib.Path(f"repository/file-{self.turn % NAMES}").write_text(f"{self.turn}\n")
            self.git("add", "-A")
            self.git("commit", "-q", "--allow-empty", "-m", f"at {self.turn}")
            commit = self.git("rev-parse", "HEAD")
            sync_directory("repository/.git")
            safe(f"commit {commit}")


class Files:
    """Appended to, replaced and removed, mapped, and written through. What a turn writes follows from its number alone, so the
    next writer repeats the turns that were not promised."""

    def __init__(self, promised):
        last = {kind: int(promised.get(kind, ["-1"])[-1]) for kind in ("record", "replaced", "mapped", "through")}
        self.records = self.check_records(last["record"])
        self.check_replaced(last["replaced"])
        self.check_pages("mapped", last["mapped"])
        self.check_pages("through", last["through"])
        self.next_replaced, self.next_page = last["replaced"] + 1, {kind: last[kind] + 1 for kind in ("mapped", "through")}

    @staticmethod
    def record(number):
        return f"record {number} {'.' * (number * 37 % 300)}\n"

    @staticmethod
    def version(number):
        """What turn `number` leaves under its name; None: nothing."""
        chance = random.Random(number)
        return None if number % 5 == 4 else f"version {number} ".encode() + chance.randbytes(chance.choice((0, 100, 5000, 200_000)))

    @staticmethod
    def page(number):
        return f"page {number} ".encode() + random.Random(number).randbytes(PAGE_BYTES - 20)

    def check_records(self, last):
        """How many there are. Half a record may follow, up to the end of a page: the kernel may send a call there in two."""
        data = pathlib.Path("records").read_bytes() if os.path.exists("records") else b""
        count, end = 0, 0
        while end < len(data):
            record = self.record(count).encode()
            rest = data[end:end + len(record)]
            if rest != record:
                assert record.startswith(rest) and len(data) % PAGE_BYTES == 0, f"record {count} is {rest!r}, {last} was on the disk"
                os.truncate("records", end)
                break
            count, end = count + 1, end + len(record)
        assert count > last, f"record {last} was on the disk, {count} are there"
        return count

    def check_replaced(self, last):
        """The promise of one turn is that of all before it; of those after it there are the first few or none."""
        there = {}
        for number in range(max(0, last + 1 - NAMES), last + 1 + UNSYNCED):
            path = pathlib.Path(f"replaced/{number % NAMES}")
            found = path.read_bytes() if path.exists() else None
            there[number] = found == self.version(number)
            # What a removal leaves looks like a name that was never there.
            before = self.version(number - NAMES) if number >= NAMES else None
            if number > last:
                assert there[number] or found == before, f"replaced/{path.name} is neither version {number} nor the one before"
                if there[number] and found != before:
                    gap = [n for n in range(last + 1, number) if not there[n]]
                    assert not gap, f"turn {number} is there, and {gap} before it are not"
            elif number + NAMES > last + UNSYNCED or found != self.version(number + NAMES):
                assert there[number], f"replaced/{path.name} is not version {number}, which was on the disk"

    def check_pages(self, kind, last):
        """The page that was being written may be anything, all others are as promised."""
        data = pathlib.Path(kind).read_bytes() if os.path.exists(kind) else b""
        for number in range(max(0, last + 1 - PAGES), last + 1):
            if (last + 1 - number) % PAGES == 0:
                continue
            at = number % PAGES * PAGE_BYTES
            expected = self.page(number)
            assert data[at:at + len(expected)] == expected, f"{kind}: page {number % PAGES} is not that of turn {number}"

    def append(self, safe):
        with open("records", "ab", buffering=0) as file:
            for _ in range(5):
                file.write(self.record(self.records).encode())
                if self.records % 3 == 0:
                    os.fsync(file.fileno())
                    safe(f"record {self.records}")
                self.records += 1

    def replace(self, number):
        path, content = f"replaced/{number % NAMES}", self.version(number)
        if content is None:
            pathlib.Path(path).unlink(missing_ok=True)
            return
        new = path + ".new"
        pathlib.Path(new).unlink(missing_ok=True)
        if number % 2 == 0:
            pathlib.Path(new).write_bytes(content)
        else:
            nameless = os.open("replaced", os.O_TMPFILE | os.O_WRONLY)
            os.write(nameless, content)
            # Only with a directory's descriptor does Python ask for the link to be followed.
            os.link(f"/proc/self/fd/{nameless}", pathlib.Path(new).name, dst_dir_fd=self.replaced)
            os.close(nameless)
        os.rename(new, path)

    def write(self, safe):
        os.makedirs("replaced", exist_ok=True)
        self.replaced = os.open("replaced", os.O_RDONLY | os.O_DIRECTORY)
        mapped = os.open("mapped", os.O_RDWR | os.O_CREAT)
        os.ftruncate(mapped, PAGES * PAGE_BYTES)
        memory = mmap.mmap(mapped, PAGES * PAGE_BYTES)
        through = os.open("through", os.O_WRONLY | os.O_CREAT | os.O_DSYNC)
        while True:
            self.append(safe)
            for number in range(self.next_replaced, self.next_replaced + UNSYNCED):
                self.replace(number)
            self.next_replaced += UNSYNCED
            os.fsync(self.replaced)
            safe(f"replaced {self.next_replaced - 1}")
            for kind, number in self.next_page.items():
                at, content = number % PAGES * PAGE_BYTES, self.page(number)
                if kind == "mapped":
                    memory[at:at + len(content)] = content
                    memory.flush(at, PAGE_BYTES)
                else:
                    os.pwrite(through, content, at)
                safe(f"{kind} {number}")
                self.next_page[kind] = number + 1


WORKLOADS = {"python": Databases, "php": PhpDatabases, "git": Git, "files": Files}


def main():
    log_path, task, *names = sys.argv[1:]
    promised = read_log(log_path)
    try:
        workloads = [WORKLOADS[name](promised) for name in names]
    except (AssertionError, sqlite3.Error, subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"not as promised: {error!r}")
    print("checked", flush=True)
    if task == "check":
        return
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND)

    def safe(what):
        # Only if the instance is there still: SQLite lets a transaction pass when it cannot open the directory to sync it.
        os.statvfs(".")
        os.write(log, f"{what}\n".encode())  # one write: whole or not there

    for workload in workloads:
        if os.fork() == 0:
            workload.write(safe)
    os.wait()
    sys.exit("a writer ended by itself")


main()
