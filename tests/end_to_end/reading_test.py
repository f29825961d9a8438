"""Commands that only ask: they write nothing, and work on a store that may not be written."""
import os
import pathlib
import re
import unittest

from harness import EndToEnd, execute

READERS = (["log"], ["digest"], ["ls"], ["stat"], ["verify"], ["snapshot", "list"])


def without_ages(said):
    return re.sub(r"\b\d+s\b", "some time", said)


class Reading(EndToEnd):
    def setUp(self):
        super().setUp()
        self.give_up_root()
        self.store = self.work / "store"
        self.run_inside(self.store, "mkdir d; echo text > d/file")
        self.reprise("snapshot", "create", self.store, "--label", "kept")
        self.run_inside(self.store, "echo more >> d/file")
        self.reprise("mark", self.store, "here")
        if self.uid != os.getuid():
            os.chown(self.work, os.getuid(), -1)  # so that nothing here is the reader's own
        self.addCleanup(self.protect, 0o755, 0o644)

    def protect(self, folder_mode, file_mode):
        for path in [self.store, *self.store.rglob("*")]:
            path.chmod(folder_mode if path.is_dir() else file_mode)

    def state_of(self):
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [self.store, *self.store.rglob("*")]
                if path.name != "catalogue.lmdb-lock"}  # the table of readers

    def ask(self, *words):
        program = getattr(self, "program", None)
        return execute([program, *words] if program else [os.environ["REPRISE"], *words], env=self.environment or None, **self.user)

    def test_they_write_nothing(self):
        before = self.state_of()
        for words in READERS:
            self.reprise(*words, self.store)
        self.assertEqual(self.reprise("cat", f"{self.store}@here:/d/file"), "text\nmore\n")
        self.assertEqual(self.state_of(), before)

    def test_a_store_that_is_not_ones_own(self):
        expected = [self.reprise(*words, self.store) for words in READERS]
        self.protect(0o555, 0o444)
        for lock_table in ("there", "missing"):
            if lock_table == "missing":
                self.store.chmod(0o755)
                (self.store / "catalogue.lmdb-lock").unlink()
                self.store.chmod(0o555)
            for words, said in zip(READERS, expected):
                with self.subTest(words=words, lock_table=lock_table):
                    done = self.ask(*words, self.store)
                    self.assertEqual((done.status, without_ages(done.out), done.err), (0, without_ages(said), ""))
            done = self.ask("cat", f"{self.store}@here:/d/file")
            self.assertEqual((done.status, done.out), (0, "text\nmore\n"), done)
            self.assertNotEqual(self.ask("mark", self.store, "another").status, 0)
        out = self.work / "out"
        out.mkdir()
        if self.uid != os.getuid():
            os.chown(out, self.uid, self.gid)
        done = self.ask("snapshot", "export", self.store, out / "tree")
        self.assertEqual(done.status, 0, done)
        self.assertEqual(pathlib.Path(out / "tree/d/file").read_text(), "text\nmore\n")

    def test_a_live_instance_that_one_may_not_ask(self):
        guest = self.guest(self.store)
        guest.sh("echo live > file; sync file")
        (self.store / "branches/main/control").chmod(0o600)
        done = self.ask("cat", f"{self.store}:/file")
        self.assertEqual((done.status, done.out), (0, "live\n"), done)
        if self.uid != os.getuid():
            self.assertIn("not shown", done.err)
        self.assertEqual(guest.end(), 0, guest.errors())


if __name__ == "__main__":
    unittest.main(verbosity=2)
