"""Runs inside an instance that will be killed: checks what an earlier one left, then writes, and logs outside what is safe.

    crash_writer.py LOG [check]

Each line of LOG says that something was on the disk, because the fsync for it had returned, when the line was written:
"record N", "wal N", "rollback N", "commit HASH". With `check` nothing is written after checking. Prints "checked" when all
that LOG promises is there and whole; exits 1 and says what is missing otherwise.
"""
import os
import pathlib
import sqlite3
import subprocess
import sys

DATABASES = {"wal": "PRAGMA synchronous = FULL", "rollback": "PRAGMA synchronous = EXTRA"}  # EXTRA: the directory too


def record(number):
    return f"record {number} {'.' * (number * 37 % 300)}\n"


def sync_directory(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def git(*words):
    return subprocess.run(["git", "-c", "core.fsync=all", "-c", "gc.auto=0", "-c", "user.name=W", "-c", "user.email=w@example.org",
                           *words], cwd="repository", check=True, capture_output=True, text=True).stdout.strip()


def database(name):
    connection = sqlite3.connect(f"{name}.db", isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {'wal' if name == 'wal' else 'delete'}")
    connection.execute(DATABASES[name])
    connection.execute("CREATE TABLE IF NOT EXISTS t (k INTEGER PRIMARY KEY, half INTEGER, text TEXT)")
    return connection


def last_of(promised, kind):
    return int(promised[kind][-1]) if promised[kind] else 0


def check_records(promised):
    path = pathlib.Path("records")
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    assert lines == [record(n) for n in range(len(lines))], "the records are not those written"
    assert len(lines) > last_of(promised, "record") or not promised["record"], \
        f"record {promised['record'][-1]} was on the disk, {len(lines)} are there"
    return len(lines)


def check_database(promised, name):
    """Transaction k inserts k twice: half a transaction would show."""
    connection = database(name)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], f"{name}.db is damaged"
    count, distinct, last = connection.execute("SELECT count(*), count(DISTINCT half), max(half) FROM t").fetchone()
    last = last or 0
    assert count == 2 * last and distinct == last, f"{name}.db has {count} rows up to transaction {last}"
    assert last >= last_of(promised, name), f"{name}.db ends at transaction {last}, {promised[name][-1]} was on the disk"
    connection.close()
    return last


def check_repository(promised):
    if not os.path.isdir("repository/.git"):
        assert not promised["commit"], "the repository is gone"
        os.makedirs("repository", exist_ok=True)
        git("init", "-q", "-b", "main", ".")
    for lock in pathlib.Path("repository/.git").rglob("*.lock"):
        lock.unlink()  # of a git that was killed
    # The index is a cache of git's that a kill may leave half way between two commits.
    fsck = subprocess.run(["git", "fsck", "--full", "--strict"], cwd="repository", capture_output=True, text=True)
    assert fsck.returncode == 0, f"git fsck: {fsck.stdout}{fsck.stderr}"
    if promised["commit"]:
        git("merge-base", "--is-ancestor", promised["commit"][-1], "HEAD")
    git("rev-list", "--objects", "--all")


def read_log(path):
    promised = {"record": [], "wal": [], "rollback": [], "commit": []}
    for line in pathlib.Path(path).read_text().splitlines():
        kind, what = line.split()
        promised[kind].append(what)
    return promised


def write(log_path, records, last):
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND)
    safe = lambda what: os.write(log, f"{what}\n".encode())  # one write: whole or not there
    file = os.open("records", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    connections = {name: database(name) for name in DATABASES}
    for turn in range(1_000_000):
        for _ in range(5):
            os.write(file, record(records).encode())
            if records % 3 == 0:
                os.fsync(file)
                safe(f"record {records}")
            records += 1
        for name, connection in connections.items():
            last[name] += 1
            connection.execute("BEGIN")
            for _ in range(2):
                connection.execute("INSERT INTO t (half, text) VALUES (?, ?)", (last[name], "x" * (last[name] * 53 % 2000)))
            connection.execute("COMMIT")
            safe(f"{name} {last[name]}")
        if turn % 8 == 0:
            pathlib.Path(f"repository/file-{records % 7}").write_text(f"{records}\n")
            git("add", "-A")
            git("commit", "-q", "--allow-empty", "-m", f"at {records}")
            commit = git("rev-parse", "HEAD")
            sync_directory("repository/.git")
            safe(f"commit {commit}")


def main():
    promised = read_log(sys.argv[1])
    try:
        records = check_records(promised)
        last = {name: check_database(promised, name) for name in DATABASES}
        check_repository(promised)
    except (AssertionError, sqlite3.Error, subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"not as promised: {error!r}")
    print("checked", flush=True)
    if sys.argv[2:] != ["check"]:
        write(sys.argv[1], records, last)


main()
