"""What is asked wrongly, or of a machine that cannot: one clear line, the right exit status, and nothing harmed."""
import concurrent.futures
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

from harness import HERE, REPRISE, TIMEOUT_S, EndToEnd, execute, free_port

RUN_FAILS, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127


def tree_of(path):
    """Everything below a path with its bytes, to see that nothing was changed. What locks and maps leave aside."""
    ignored = ("lock", "catalogue.lmdb-lock", "control")
    return {str(entry.relative_to(path)): entry.read_bytes() if entry.is_file() else None
            for entry in sorted(path.rglob("*")) if entry.name not in ignored}


class BadInput(EndToEnd):
    def check(self, words, status, *said, env=None):
        """The command fails with the status and one line that holds all the words."""
        line = self.refused(*words, status=status, env=env)
        for word in said:
            self.assertIn(str(word), line)

    def check_unharmed(self, path, words, status, *said, env=None):
        before = tree_of(path)
        self.check(words, status, *said, env=env)
        self.assertEqual(tree_of(path), before)

    def asking(self, store):
        """Every command that only asks, or needs a store that is there."""
        return [["log", store], ["digest", store], ["ls", store], ["cat", f"{store}:/file"], ["stat", store], ["verify", store],
                ["repair", store], ["mark", store, "m"], ["wait-for", store, "m", "--timeout", 0.2], ["snapshot", "list", store],
                ["snapshot", "create", store], ["snapshot", "export", store, self.work / "out"],
                ["replay", store, "--onto", self.work / "out"]]

    def test_what_is_no_store(self):
        folder, file, absent = self.work / "folder", self.work / "file", self.work / "absent"
        folder.mkdir()
        (folder / "something").write_text("of the user's")
        file.write_text("text")
        for words in self.asking(absent):
            with self.subTest(words=words):
                self.check(words, 3, absent)
                self.assertFalse(absent.exists())
        for words in self.asking(folder):
            # A directory has a content digest, and the words say how to get it.
            with self.subTest(words=words):
                self.check_unharmed(folder, words, 2 if words[0] == "digest" else 3, folder)
        empty = self.work / "empty"
        empty.mkdir()
        for words in self.asking(empty):
            with self.subTest(words=words):
                self.check_unharmed(empty, words, 2 if words[0] == "digest" else 3, empty)
        for words in self.asking(file):
            if words[0] in ("log", "replay"):
                continue  # a file is a segment there, see below
            with self.subTest(words=words):
                self.check(words, 3, file)
        for words in (["log", file], ["replay", file, "--onto", self.work / "out"]):
            with self.subTest(words=words):
                self.check(words, 3, file, "segment")
        self.check_unharmed(folder, ["run", "--store", folder, "--", "true"], RUN_FAILS, folder, "expected", "found")
        self.check(["run", "--store", file, "--", "true"], RUN_FAILS, file)
        self.check(["run", "--store", self.work / "no/such/folder", "--", "true"], RUN_FAILS, self.work / "no/such/folder")
        self.assertFalse((self.work / "out").exists())
        self.assertEqual(file.read_text(), "text")

    def test_a_branch_that_cannot_be_one(self):
        for branch in ("bad/branch", "head", "9", "a b", ""):
            with self.subTest(branch):
                self.check(["run", "--store", f"{self.work}/S:{branch}", "--", "true"], RUN_FAILS, f'found "{branch}"', "letters")
                self.check(["log", f"{self.work}/S:{branch}"], 2, f'found "{branch}"', "letters")
        self.assertEqual(list(self.work.iterdir()), [])

    def test_a_run_that_could_not_begin_leaves_nothing(self):
        new = self.work / "new"
        self.check(["run", "--store", new, "--", "true"], RUN_FAILS, "/nonexistent", env={"REPRISE_FUSE_DEVICE": "/nonexistent"})
        self.assertFalse(new.exists())
        self.check(["run", "--store", new, "--at", self.work / "nowhere", "--", "true"], RUN_FAILS, self.work / "nowhere")
        self.assertFalse(new.exists())
        self.check(["run", "--store", new, "--listen", "here", "--", "true"], RUN_FAILS, "here", "unix:")
        self.assertFalse(new.exists())
        self.check(["run", "--store", new, "--listen", f"unix:{self.work}/no/such/folder", "--", "true"], RUN_FAILS, "no/such/folder")
        self.assertFalse(new.exists())

    def test_a_signal_ends_the_wait_for_the_leader(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            new = self.work / "new"
            with self.subTest(number), subprocess.Popen(
                    [REPRISE, "run", "--store", new, "--follow", f"unix:{self.work}/nobody", "--", "true"]) as run:
                while not (new / "mnt").exists():
                    time.sleep(0.01)
                time.sleep(0.2)
                begin = time.monotonic()
                run.send_signal(number)
                self.assertEqual(run.wait(TIMEOUT_S), 128 + number)
                self.assertLess(time.monotonic() - begin, 5)
                self.assertFalse(new.exists())

    def test_no_fuse_device(self):
        store = self.work / "S"
        self.run_inside(store, "echo x > file")
        for device, said in (("/nonexistent", "/nonexistent"), ("/dev/null", "/dev/null"), (str(self.work), str(self.work))):
            with self.subTest(device):
                self.check_unharmed(store, ["run", "--store", store, "--", "true"], RUN_FAILS, said,
                                    env={"REPRISE_FUSE_DEVICE": device})
        self.assertEqual(self.run_inside(store, "cat file"), "x\n")

    def test_a_store_of_another_version(self):
        store = self.work / "S"
        self.run_inside(store, "echo x > file")
        identity = store / "reprise.store"
        honest = identity.read_bytes()
        for name, data, said in (("version 7", honest[:16] + struct.pack("<I", 7) + honest[20:40] + b"checksum", ("version", "7", "expected", "0")),
                                 ("a flipped bit", honest[:30] + bytes([honest[30] ^ 1]) + honest[31:], ("expected",)),
                                 ("cut short", honest[:20], ()), ("empty", b"", ()), ("something else", b"x" * 48, ())):
            with self.subTest(name):
                identity.write_bytes(data)
                self.check_unharmed(store, ["run", "--store", store, "--", "true"], RUN_FAILS, store, *said)
                for words in self.asking(store):
                    if name != "version 7" and words[0] in ("verify", "repair"):
                        continue  # damage is what they are for: damage_test.py
                    with self.subTest(words=words):
                        self.check_unharmed(store, words, 3, store, *said)
        identity.write_bytes(honest)
        self.assertEqual(self.reprise("cat", f"{store}:/file"), "x\n")
        # The journal's own version, with a checksum that is right or not.
        segment = store / "branches/main/journal/0000000001.seg"
        honest = segment.read_bytes()
        segment.write_bytes(honest[:8] + struct.pack("<H", 9) + honest[10:])
        self.check_unharmed(store, ["run", "--store", store, "--", "true"], RUN_FAILS, segment)
        segment.write_bytes(honest)
        self.assertEqual(self.reprise("cat", f"{store}:/file"), "x\n")

    def test_a_damaged_snapshot_or_catalogue(self):
        store = self.work / "S"
        self.run_inside(store, "head -c 300000 /dev/urandom > file")
        pack = store / "packs/00000001.pack"
        content = self.reprise("digest", "--content", store)
        honest = pack.read_bytes()
        places = (len(honest) // 2, 50, len(honest) - 20)
        for place in places:
            with self.subTest("with the whole journal", place=place):
                pack.write_bytes(honest[:place] + bytes([honest[place] ^ 0x40]) + honest[place + 1:])
                found = self.reprise("verify", store, status=1)
                self.assertIn("damaged: ", found)
                self.assertIn(str(pack), found)
                # Nothing is lost with the snapshot, and it is said.
                done = execute([REPRISE, "run", "--store", store, "--", "true"])
                self.assertEqual(done.status, 0, done)
                self.assertIn(str(pack), done.err)
                pack.write_bytes(honest)
                self.assertEqual(self.reprise("digest", "--content", store), content)
        self.reprise("snapshot", "create", store, "--trim")
        honest = pack.read_bytes()
        for place in places:
            with self.subTest("the snapshot is all there is", place=place):
                pack.write_bytes(honest[:place] + bytes([honest[place] ^ 0x40]) + honest[place + 1:])
                self.check_unharmed(store, ["run", "--store", store, "--", "true"], RUN_FAILS, pack)
        pack.write_bytes(honest)
        catalogue = store / "catalogue.lmdb"
        honest = catalogue.read_bytes()
        catalogue.write_bytes(b"x" * len(honest))
        self.check_unharmed(store, ["run", "--store", store, "--", "true"], RUN_FAILS, catalogue)
        catalogue.write_bytes(honest)
        self.reprise("verify", store)

    def test_peers(self):
        a, b, stranger = self.work / "A", self.work / "B", self.work / "X"
        endpoint = f"unix:{self.work}/a.sock"
        leader = self.guest(a, "--listen", endpoint)
        leader.sh("echo x > file")
        follower = self.guest(b, "--follow", endpoint)
        self.assertEqual(follower.end(), 0)
        # Another volume.
        self.run_inside(stranger, "echo y > other")
        volumes = [self.stat(store)["volume"] for store in (a, stranger)]
        self.check_unharmed(stranger, ["run", "--store", stranger, "--follow", endpoint, "--", "sleep", "30"], RUN_FAILS, *volumes)
        # An endpoint that is taken, and some that are none.
        before = self.reprise("digest", "--content", stranger)
        self.check(["run", "--store", stranger, "--listen", endpoint, "--", "true"], RUN_FAILS, f"{self.work}/a.sock")
        self.assertEqual(self.reprise("digest", "--content", stranger), before)
        self.assertEqual(leader.sh("cat file"), "x\n")
        for wrong in ("tcp:1", "unix:", "", "unix:" + "x" * 200):
            if wrong:
                with self.subTest(wrong):
                    self.check(["run", "--store", self.work / "N", "--follow", wrong, "--", "true"], RUN_FAILS, wrong[:20])
        self.check_tokens()
        # A follower with a history begins with it while its leader is away.
        self.assertEqual(leader.end(), 0)
        self.assertEqual(self.run_inside(b, "cat file", "--follow", endpoint), "x\n")

    def check_tokens(self):
        """What TCP beyond the loopback is refused for, and what a token file may be."""
        new = self.work / "N"
        self.check(["run", "--store", new, "--listen", "tcp:0.0.0.0:7", "--", "true"], RUN_FAILS, "tcp:0.0.0.0:7", "--token-file")
        token = self.work / "token"
        run = ["run", "--store", new, "--token-file", token, "--", "true"]
        self.check(run, RUN_FAILS, token)
        for text in ("", "too short\n", "x" * 5000):
            token.write_text(text)
            self.check(run, RUN_FAILS, token, "16 to 4096")
        self.check(["run", "--store", new, "--token-file", self.work, "--", "true"], RUN_FAILS, self.work)
        # Another token than the leader's.
        token.write_text("the token of the leader")
        endpoint = f"tcp:127.0.0.1:{free_port()}"
        leader = self.guest(self.work / "T", "--listen", endpoint, "--token-file", token)
        self.check(["run", "--store", new, "--follow", endpoint, "--", "true"], RUN_FAILS, endpoint, "token")
        other = self.work / "other token"
        other.write_text("another token than the leader's")
        self.check(["run", "--store", new, "--follow", endpoint, "--token-file", other, "--", "true"], RUN_FAILS, endpoint, "token")
        self.assertFalse(new.exists())
        # One that has followed before is refused in the same words.
        had = self.work / "H"
        self.run_inside(had, "true", "--follow", endpoint, "--token-file", token)
        self.check(["run", "--store", had, "--follow", endpoint, "--", "true"], RUN_FAILS, endpoint, "--token-file")
        self.assertEqual(leader.end(), 0)

    def test_no_first_contact(self):
        """A new follower waits 10 s for its leader and says why it was in vain: nobody listens, or somebody else does."""
        path = str(self.work / "nonsense.sock")
        with socket.socket(socket.AF_UNIX) as listener, concurrent.futures.ThreadPoolExecutor() as at_once:
            listener.bind(path)
            listener.listen()

            def talk():
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return  # shut down
                    with connection:
                        try:
                            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)
                        except OSError:
                            pass
            at_once.submit(talk)
            run = ["run", "--store"]
            nobody = at_once.submit(self.check, [*run, self.work / "B", "--follow", f"unix:{self.work}/nobody", "--", "true"],
                                    RUN_FAILS, f"{self.work}/nobody")
            nonsense = at_once.submit(self.check, [*run, self.work / "C", "--follow", f"unix:{path}", "--", "true"], RUN_FAILS, path)
            try:
                nobody.result()
                nonsense.result()
            finally:
                listener.shutdown(socket.SHUT_RDWR)
        self.assertFalse((self.work / "B").exists())
        self.assertFalse((self.work / "C").exists())

    def test_a_leader_that_is_talked_nonsense_to_goes_on(self):
        leader = self.guest(self.work / "A", "--listen", f"unix:{self.work}/a.sock")
        for nonsense in (b"", b"x", b"\0" * 1000, b"\xff" * 100_000, os.urandom(5000)):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(f"{self.work}/a.sock")
                try:
                    connection.sendall(nonsense)
                except BrokenPipeError:
                    pass
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.work / "A/branches/main/control"))
                try:
                    connection.sendall(nonsense)
                except BrokenPipeError:
                    pass
        leader.sh("echo x > file")
        follower = self.guest(self.work / "B", "--follow", f"unix:{self.work}/a.sock")
        self.reprise("mark", self.work / "A", "m")
        self.reprise("wait-for", self.work / "B", "m")
        self.assertEqual(follower.sh("cat file"), "x\n")

    def test_a_branch_that_is_live(self):
        store = self.work / "S"
        guest = self.guest(store)
        guest.sh("echo x > file")
        pid = str(guest.process.pid)
        self.check(["run", "--store", store, "--", "true"], RUN_FAILS, store, pid, "reprise run")
        self.check(["verify", store], 3, pid)
        self.check(["repair", store], 3, pid)
        self.check(["run", "--store", store, "--follow", f"unix:{self.work}/s", "--", "true"], RUN_FAILS, pid)
        # It has not noticed, and those that only ask are answered.
        self.assertEqual(guest.sh("cat file; echo y > file; cat file"), "x\ny\n")
        self.assertEqual(self.reprise("cat", f"{store}:/file"), "y\n")
        self.assertEqual(self.reprise("ls", store), "file\n")
        self.reprise("mark", store, "m")
        self.reprise("wait-for", store, "m")
        self.assertIn("create", self.reprise("log", store))
        self.assertEqual(guest.end(), 0, guest.errors())
        self.run_inside(store, "true")

    def test_how_commands_end(self):
        store = self.work / "S"
        script = self.work / "not-executable"
        script.write_text("#!/bin/sh\n")
        for command, status in ((["true"], 0), (["false"], 1), (["sh", "-c", "exit 42"], 42), (["sh", "-c", "exit 125"], 125),
                                (["sh", "-c", "kill -TERM $$"], 128 + 15), (["sh", "-c", "kill -KILL $$"], 128 + 9),
                                (["sh", "-c", "kill -SEGV $$"], 128 + 11)):
            with self.subTest(command=command):
                done = execute([REPRISE, "run", "--store", store, "--", *command])
                self.assertEqual((done.status, done.err), (status, ""), done)
        self.check(["run", "--store", store, "--", "no-such-command"], NOT_FOUND, "no-such-command")
        self.check(["run", "--store", store, "--", "./no-such-file"], NOT_FOUND, "./no-such-file")
        self.check(["run", "--store", store, "--", script], NOT_EXECUTABLE, script)
        self.check(["run", "--store", store, "--", self.work], NOT_EXECUTABLE, self.work)
        self.run_inside(store, "echo x > file; printf '#!/bin/sh\\necho inside' > tool; chmod +x tool; ./tool; exit 7", status=7)
        self.assertEqual(self.reprise("cat", f"{store}:/file"), "x\n")  # kept, however it ended
        # Signals go to the command, which decides; and standard input, output and error are its own.
        guest = self.guest(store)
        guest.do("import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(33))")
        guest.process.send_signal(signal.SIGTERM)
        self.assertEqual(guest.process.wait(TIMEOUT_S), 33)
        done = subprocess.run([REPRISE, "run", "--store", str(store), "--", "cat"], input=b"through\n", capture_output=True, timeout=TIMEOUT_S)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"through\n", b""))

    def test_usage(self):
        store = self.work / "S"
        self.run_inside(store, "echo x > file")
        run = ["run", "--store", store]
        endpoint = f"unix:{self.work}/s"
        for status, usages in ((2, ([], ["no-such-command"], ["digest"], ["replay", store], ["snapshot"],
                                    ["wait-for", store, "m", "--timeout", "soon"], ["log", store, "--origin", "zz"])),
                               (RUN_FAILS, (["run"], run, ["run", "--no-such-option"], ["exec"],
                                            [*run, "--durability", "perhaps", "--", "true"],
                                            [*run, "--journal-limit", "3M", "--", "true"], [*run, "--journal-limit", "big", "--", "true"],
                                            [*run, "--journal-age", "1w", "--", "true"],
                                            [*run, "--journal-age", "99999999999999999999d", "--", "true"],
                                            [*run, "--listen", endpoint, "--follow", endpoint, "--", "true"]))):
            for words in usages:
                with self.subTest(words=words):
                    done = execute([REPRISE, *words])
                    self.assertEqual((done.status, done.out, done.err.count("\n")), (status, "", 1), done)
        for words, status, said in ((["cat", f"{store}:/absent"], 3, "/absent"), (["cat", f"{store}:/"], 3, "/"),
                                    (["ls", f"{store}:/absent"], 3, "/absent"), (["ls", f"{store}@999"], 3, "999"),
                                    (["ls", f"{store}@no-such-mark"], 3, "no-such-mark"), (["mark", store, "not good"], 2, "not good"),
                                    (["mark", store, "head"], 2, "head"), (["digest", f"{store}:other"], 3, "other"),
                                    (["wait-for", store, "never"], 1, "never"), (["digest", self.work], 2, "--content"),
                                    (["ls", f"{store}@{{soon}}"], 2, "soon"), (["ls", f"{store}@r0.nonsense"], None, "r0")):
            with self.subTest(words=words):
                if status is None:
                    done = execute([REPRISE, *words])
                    self.assertIn(done.status, (2, 3), done)
                    continue
                self.check_unharmed(store, words, status, said)
        full = self.work / "full"
        full.mkdir()
        (full / "of the user's").write_text("x")
        self.check_unharmed(full, ["replay", store, "--onto", full], 3, full)
        self.check_unharmed(full, ["snapshot", "export", store, full], 3, full)
        for words in (["--help"], ["run", "--help"], ["log", "--help"], ["snapshot", "create", "--help"], ["--version"]):
            self.assertNotEqual(self.reprise(*words), "")
            with open("/dev/full", "w") as nowhere:
                done = subprocess.run([REPRISE, *words], stdout=nowhere, stderr=subprocess.PIPE)
            self.assertEqual((done.returncode, done.stderr.count(b"\n")), (3, 1), done)

    def test_a_full_disk(self):
        """In a mount namespace of its own: full_disk.py, which says on its standard output what went wrong, if anything."""
        namespace = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--mount"]
        disk = self.work / "disk"
        disk.mkdir()
        done = execute([*namespace, sys.executable, HERE / "full_disk.py", disk, REPRISE])
        self.assertEqual((done.status, done.out), (0, ""), done)


if __name__ == "__main__":
    unittest.main(verbosity=2)
