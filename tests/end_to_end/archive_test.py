"""`reprise snapshot import` and `export`: archives and directories into stores and out of them again."""
import io
import os
import resource
import stat
import subprocess
import tarfile
import time
import unittest
import zipfile

from harness import REPRISE, EndToEnd, execute


class Archive(EndToEnd):
    def setUp(self):
        super().setUp()
        self.store = self.work / "S"
        self.tree = self.work / "tree"
        (self.tree / "a/b").mkdir(parents=True)
        (self.tree / "a/text").write_text("hello\n")
        (self.tree / "a/b/run").write_bytes(os.urandom(300_000))
        (self.tree / "a/b/run").chmod(0o751)
        (self.tree / "link").symlink_to("a/text")
        os.utime(self.tree / "a/text", ns=(1_600_000_000_123_456_700, 1_600_000_000_123_456_700))

    def content(self, what):
        return self.reprise("digest", "--content", what).strip()

    def nothing_is_left(self, directory):
        self.assertEqual([path for path in os.listdir(directory) if ".reprise-" in path], [])

    def test_a_directory_goes_in_and_comes_out_in_every_form(self):
        wanted = self.content(f"dir:{self.tree}")
        self.reprise("snapshot", "import", self.store, self.tree)
        self.assertEqual(self.content(self.store), wanted)
        for name in ("out.zip", "out.tar", "out"):
            self.reprise("snapshot", "export", self.store, self.work / name)
            self.reprise("snapshot", "import", self.work / f"S-{name}", self.work / name)
            self.assertEqual(self.content(self.work / f"S-{name}"), wanted)
        self.nothing_is_left(self.work)
        self.assertEqual(os.stat(self.work / "out/a/text").st_mtime_ns, 1_600_000_000_123_456_700)
        self.assert_same_tree(self.tree, self.work / "out")
        # Recorded, with a snapshot, and open to a program.
        self.assertIn("import", self.reprise("log", self.store))
        self.assertIn("import", self.reprise("snapshot", "list", self.store))
        self.assertEqual(self.run_inside(self.store, "cat link; echo more >> a/text"), "hello\n")
        self.reprise("verify", self.store)
        self.assertEqual(self.reprise("cat", f"{self.store}:/a/text"), "hello\nmore\n")

    def test_pipes(self):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            tar.add(self.tree, ".")
        done = subprocess.run([REPRISE, "snapshot", "import", self.store, "-"], input=archive.getvalue(), capture_output=True)
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(self.content(self.store), self.content(f"dir:{self.tree}"))
        done = subprocess.run([REPRISE, "snapshot", "export", self.store, "-"], capture_output=True)
        self.assertEqual(done.returncode, 0, done)
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
            self.assertEqual(tar.extractfile("a/text").read(), b"hello\n")
        done = subprocess.run([REPRISE, "snapshot", "export", f"{self.store}:/a", "zip:-"], capture_output=True)
        self.assertEqual(done.returncode, 0, done)
        with zipfile.ZipFile(io.BytesIO(done.stdout)) as zipped:
            self.assertEqual(sorted(zipped.namelist()), ["b/", "b/run", "text"])
        again = subprocess.run([REPRISE, "snapshot", "import", self.work / "Z", "-"], input=done.stdout, capture_output=True)
        self.assertEqual(again.returncode, 0, again)
        self.assertEqual(self.reprise("cat", f"{self.work / 'Z'}:/text"), "hello\n")

    def test_replay_onto_a_zip(self):
        self.run_inside(self.store, "echo one > f")
        self.reprise("mark", self.store, "one")
        self.run_inside(self.store, "echo two > f")
        self.reprise("replay", self.store, "--until", "one", "--onto", self.work / "one.zip")
        with zipfile.ZipFile(self.work / "one.zip") as zipped:
            self.assertEqual(zipped.read("f"), b"one\n")

    def test_a_release_is_a_base_that_is_changed_and_compared(self):
        release = self.work / "wordpress.zip"
        with zipfile.ZipFile(release, "w", zipfile.ZIP_DEFLATED) as zipped:
            for number in range(300):
                zipped.writestr(f"wordpress/wp-includes/d{number % 7}/f{number}.php", f"<?php // {number}\n" * number)
            zipped.writestr("wordpress/index.php", "<?php echo 1;\n")
        self.reprise("snapshot", "import", self.store, release)
        self.run_inside(self.store, "echo '// mine' >> wordpress/index.php; rm -r wordpress/wp-includes/d3")
        self.reprise("snapshot", "export", self.store, self.work / "out.zip")
        with zipfile.ZipFile(self.work / "out.zip") as zipped:
            self.assertIsNone(zipped.testzip())
            self.assertEqual(zipped.read("wordpress/index.php"), b"<?php echo 1;\n// mine\n")
            self.assertEqual(sum(name.endswith(".php") for name in zipped.namelist()), 1 + 300 - 43)

    def test_layers_and_parts(self):
        self.reprise("snapshot", "import", self.store, self.tree)
        self.assertIn("--over", self.refused("snapshot", "import", self.store, self.tree, status=3))
        layer = self.work / "layer"
        (layer / "a").mkdir(parents=True)
        (layer / "a/text").write_text("laid over\n")
        (layer / "new").write_text("new\n")
        done = self.reprise_json("snapshot", "import", self.store, layer, "--over")
        self.assertEqual(done["replaced"], 1)
        self.assertEqual(self.reprise("cat", f"{self.store}:/a/text"), "laid over\n")
        self.reprise("snapshot", "import", f"{self.store}:/sub/dir", layer)
        self.assertEqual(self.reprise("cat", f"{self.store}:/sub/dir/new"), "new\n")
        self.reprise("snapshot", "export", self.store, self.work / "part", "--include", "a/", "--exclude", "run")
        self.assertEqual(sorted(str(path.relative_to(self.work / "part")) for path in (self.work / "part").rglob("*")),
                         ["a", "a/b", "a/text"])
        (self.work / "part/mine").write_text("mine")
        self.refused("snapshot", "export", self.store, self.work / "part", status=3)
        self.reprise("snapshot", "export", self.store, self.work / "part", "--over")
        self.assertEqual((self.work / "part/mine").read_text(), "mine")
        self.assertTrue((self.work / "part/a/b/run").exists())
        self.nothing_is_left(self.work / "part")

    def test_what_is_damaged_imports_nothing(self):
        good = self.work / "good.zip"
        with zipfile.ZipFile(good, "w") as zipped:
            zipped.writestr("first", "1" * 1000)
            zipped.writestr("second", "2" * 1000)
        damaged = self.work / "damaged.zip"
        damaged.write_bytes(good.read_bytes().replace(b"2" * 1000, b"2" * 999 + b"3"))
        line = self.refused("snapshot", "import", self.store, damaged, status=3)
        self.assertIn("damaged.zip: entry second", line)
        self.assertFalse(self.store.exists())
        self.reprise("snapshot", "import", self.store, good)
        before = self.digests(self.store)
        line = self.refused("snapshot", "import", self.store, damaged, "--over", status=3)
        self.assertEqual(self.digests(self.store), before)
        with tarfile.open(self.work / "evil.tar", "w") as tar:
            evil = tarfile.TarInfo("../evil")
            tar.addfile(evil)
        self.assertIn("../evil", self.refused("snapshot", "import", self.store, self.work / "evil.tar", "--over", status=3))
        self.assertEqual(self.digests(self.store), before)
        self.refused("snapshot", "import", self.store, self.work / "nothing.zip", "--over", status=3)
        self.refused("snapshot", "import", f"{self.store}@1", good, status=2)
        self.refused("snapshot", "export", self.store, self.work / "x.tar.gz", status=2)
        self.refused("snapshot", "export", self.store, self.work / "x.zip", "--over", status=2)
        with tarfile.open(self.work / "many.tar", "w") as tar:
            for number in range(20):
                tar.addfile(tarfile.TarInfo(f"f{number}"))
        line = self.refused("snapshot", "import", self.work / "T", self.work / "many.tar", "--max-entries", "10", status=3)
        self.assertIn("--max-entries", line)

    def killed(self, after_s, *command):
        """Runs it, and kills it after so long. Was it done before?"""
        process = subprocess.Popen([REPRISE, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(after_s)
        process.kill()
        process.communicate()
        return process.returncode == 0

    def duration(self, *command):
        begun = time.monotonic()
        self.reprise(*command)
        return time.monotonic() - begun

    def test_a_killed_import_has_brought_all_or_nothing(self):
        """And another one removes what it has left, whatever that is."""
        for i in range(900):
            (self.tree / f"a/{i}").write_bytes(os.urandom(12_000))  # more than one batch
        wanted = self.content(f"dir:{self.tree}")
        whole = self.duration("snapshot", "import", self.work / "whole", self.tree)
        for n in range(12):
            store = self.work / f"S{n}"
            done = self.killed(whole * n / 11, "snapshot", "import", store, self.tree)
            begun = (store / "branches/main/journal").exists()
            if begun:
                self.reprise("verify", store)
                names = [name for name in self.reprise("ls", store).split("\n") if name and not name.startswith(".reprise-import-")]
                self.assertIn(names, ([], ["a", "link"]))
                self.assertTrue(names or not done)
                if names:
                    self.assertEqual(self.content(store), wanted)
                    continue
            had_left = begun and ".reprise-import-" in self.reprise("ls", store)
            again = execute([REPRISE, "snapshot", "import", store, self.tree])
            self.assertEqual(again.status, 0, again)
            self.assertEqual("what an interrupted import had left is gone" in again.err, had_left)
            self.assertEqual(self.content(store), wanted)
            self.reprise("verify", store)

    def test_a_killed_export_leaves_the_target_as_it_was(self):
        for i in range(300):
            (self.tree / f"a/{i}").write_bytes(os.urandom(12_000))
        self.reprise("snapshot", "import", self.store, self.tree)
        wanted = self.content(self.store)
        for name in ("out.zip", "out.tar", "out"):
            whole = self.duration("snapshot", "export", self.store, self.work / f"whole-{name}")
            for n in range(8):
                target = self.work / f"{n}-{name}"
                if name != "out":
                    target.write_bytes(b"what was there before")
                done = self.killed(whole * n / 7, "snapshot", "export", self.store, target)
                if name != "out" and target.read_bytes() == b"what was there before" or not target.exists():
                    self.assertFalse(done)
                    self.reprise("snapshot", "export", self.store, target)
                self.assertEqual(self.content(target), wanted)

    def test_a_live_branch_is_not_written(self):
        guest = self.guest(self.store)
        line = self.refused("snapshot", "import", self.store, self.tree, "--over", status=3)
        self.assertIn("live", line)
        guest.end()

    def test_privileges_are_said_to_be_left_out(self):
        (self.tree / "a/text").chmod(0o4755)
        done = subprocess.run([REPRISE, "snapshot", "import", self.store, self.tree], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done)
        self.assertIn("1 files and directories came without their setuid", done.stderr)
        self.reprise("snapshot", "export", self.store, self.work / "out")
        self.assertEqual(stat.S_IMODE((self.work / "out/a/text").stat().st_mode), 0o755)

    def test_a_large_hole_takes_no_memory(self):
        with open(self.tree / "hole", "wb") as file:
            file.truncate(6 << 30)
            file.seek(5 << 30)
            file.write(b"far")

        def limited():
            resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))

        tar = self.work / "t.tar"
        self.succeed("tar", "-C", self.tree, "-S", "-cf", tar, ".")
        for name, source in (("D", self.tree), ("T", tar)):
            done = subprocess.run([REPRISE, "snapshot", "import", self.work / name, source], preexec_fn=limited,
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done)
        self.reprise("snapshot", "export", self.work / "T", self.work / "back.tar")
        self.assertLess((self.work / "back.tar").stat().st_size, 10 << 20)
        self.assertEqual(self.content(self.work / "D"), self.content(self.work / "T"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
