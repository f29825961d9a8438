"""`reprise mount`: an instance that everybody sees, and that leaves no dead mount behind however it ends."""
import pathlib
import signal
import subprocess
import time
import unittest

from harness import TIMEOUT_S, EndToEnd


class Mount(EndToEnd):
    def setUp(self):
        super().setUp()
        self.store, self.path = self.work / "S", self.work / "p"
        self.path.mkdir()

    def mount(self, *options):
        process = subprocess.Popen([self.program, "mount", self.store, self.path, *options], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), f"{self.store} is mounted at {self.path}\n", self.rest_of(process))
        return process

    def rest_of(self, process):
        return "" if process.poll() is None else process.stderr.read()

    def mounted(self):
        return str(self.path) in pathlib.Path("/proc/self/mountinfo").read_text()

    def test_a_slip_in_the_path_makes_no_directories(self):
        for command in (["mount", "no/such/S", self.path], ["serve", "no/such/S"], ["run", "--store", "no/such/S", "--", "true"]):
            with self.subTest(command=command):
                said = self.refused(*command, status=125 if command[0] == "run" else 3, cwd=self.work)
                self.assertIn("expected a directory no/such with the store in it", said)
        self.assertFalse((self.work / "no").exists())
        self.run_inside(f"{self.store}/", "true")

    def test_it_is_apart_from_its_store(self):
        folder = self.work / "top"
        (folder / "S/branches").mkdir(parents=True)
        for store, mountpoint in ((folder / "T", folder), (folder / "S", folder / "S"), (folder / "S", folder / "S/branches")):
            with self.subTest(store=store, mountpoint=mountpoint):
                self.assertIn("apart from the store", self.refused("mount", store, mountpoint, status=2))
                self.assertIn("apart from the store", self.refused("run", "--store", store, "--at", mountpoint, "--", "true", status=125))
        self.assertIn("apart from the store", self.refused("run", "--store", "T", "--at", ".", "--", "true", status=125, cwd=folder))
        self.assertFalse((folder / "T").exists())

    def test_everybody_sees_it_until_a_signal(self):
        process = self.mount()
        (self.path / "file").write_text("text")
        self.assertEqual(self.reprise("exec", self.store, "--", "cat", "file"), "text")
        self.assertIn("reprise mount", self.refused("mount", self.store, self.path, status=3))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(TIMEOUT_S), 0)
        self.assertFalse(self.mounted())
        self.assertEqual(self.reprise("cat", f"{self.store}:/file"), "text")

    def test_umount_ends_it(self):
        process = self.mount()
        (self.path / "file").write_text("text")
        self.succeed("fusermount3", "-u", self.path)
        self.assertEqual(process.wait(TIMEOUT_S), 0)
        self.assertEqual(self.reprise("ls", self.store), "file\n")

    def test_with_programs_still_in_it(self):
        process = self.mount()
        reader = subprocess.Popen([self.python, "-c", "import time\nopen('f', 'w').close()\nprint('in', flush=True)\n"
                                   "while True:\n    time.sleep(0.01)\n    open('f', 'w').close()"],
                                  cwd=self.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(reader.stdout.readline(), b"in\n")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(TIMEOUT_S), 0)
        self.assertFalse(self.mounted())
        _, err = reader.communicate(timeout=TIMEOUT_S)
        self.assertRegex(err, b"Transport endpoint is not connected|Software caused connection abort")
        self.assertEqual(self.reprise("ls", self.store), "f\n")

    def test_killed_it_leaves_no_dead_mount(self):
        process = self.mount()
        descriptor = open(self.path / "file", "w")
        descriptor.write("text")
        descriptor.flush()
        subprocess.run(["sync", self.path / "file"], check=True)
        process.kill()
        process.wait(TIMEOUT_S)
        deadline = time.monotonic() + TIMEOUT_S
        while self.mounted():
            self.assertLess(time.monotonic(), deadline, "the dead mount stays")
            time.sleep(0.01)
        try:
            descriptor.close()
        except OSError:
            pass
        self.assertEqual(self.reprise("cat", f"{self.store}:/file"), "text")

    def test_a_volume_has_the_size_it_was_given_until_it_is_given_another(self):
        fill = "head -c 3000000 /dev/zero > big || true"
        self.assertEqual(self.run_inside(self.store, f"{{ {fill}; }} 2>&1 | grep -c 'No space'; stat -c %s big; df -B1 . | tail -1",
                                         "--volume-size", "2M").split()[:4], ["1", "2097152", "reprise", "2097152"])
        self.assertEqual(self.run_inside(self.store, f"{fill}; stat -c %s big").split(), ["2097152"])
        self.run_inside(self.store, "> few", "--volume-inodes", "3", "--volume-size", "none")
        self.assertEqual(self.run_inside(self.store, f"{fill}; stat -c %s big; > more || echo none").split(), ["3000000", "none"])
        self.guest(self.store, "--volume-inodes", "4", "--listen", f"unix:{self.work}/s")
        stat = self.stat(self.store)
        self.assertEqual((stat["inodes_at_most"], stat.get("bytes_at_most")), (4, None))
        refused = self.refused("run", "--store", self.work / "F", "--follow", f"unix:{self.work}/s", "--volume-size", "1G",
                               "--", "true", status=125)
        self.assertIn("set where it is written", refused)

    def test_a_follower_is_read_only(self):
        leader = self.guest(self.work / "A", "--listen", f"unix:{self.work}/s")
        leader.sh("echo one > file")
        process = self.mount("--follow", f"unix:{self.work}/s")
        self.assertEqual((self.path / "file").read_text(), "one\n")
        with self.assertRaisesRegex(OSError, "Read-only"):
            (self.path / "file").write_text("x")
        leader.sh("echo two >> file")
        self.reprise("mark", self.work / "A", "two")
        self.reprise("wait-for", self.store, "two")
        self.assertEqual((self.path / "file").read_text(), "one\ntwo\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(TIMEOUT_S), 0)

    def test_where_nothing_can_be_mounted(self):
        self.assertIn("nowhere", self.refused("mount", self.store, self.work / "nowhere", status=3))
        (self.work / "file").write_text("x")
        self.assertIn("not a directory", self.refused("mount", self.store, self.work / "file", status=2))
        self.refused("mount", self.work / "file", self.path, status=3)
        self.assertFalse(self.mounted())


if __name__ == "__main__":
    unittest.main(verbosity=2)
