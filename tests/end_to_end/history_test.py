"""What is left of a journal: trimmed, with its beginning missing, repaired; and what the commands say of it."""
import os
import shutil
import unittest

from harness import EndToEnd, execute


class History(EndToEnd):
    def setUp(self):
        super().setUp()
        self.store = self.work / "S"
        self.journal = self.store / "branches/main/journal"

    def segments(self):
        return sorted(self.journal.glob("*.seg"))

    def write(self, directory, megabytes):
        """Some megabytes that do not compress, in files of 64 KiB, one segment a megabyte."""
        self.run_inside(self.store, f"mkdir -p {directory}; cd {directory}; for i in $(seq {megabytes * 16}); do "
                        "head -c 65536 /dev/urandom > $i.new; mv $i.new $i; done", "--journal-limit", "4M")

    def trimmed(self):
        for name, megabytes in (("a/deep", 3), ("b", 3), ("c", 2)):
            self.write(name, megabytes)
        first = self.reprise_json("stat", self.store)["journal"]["first"]
        self.assertGreater(first, 20)
        return first

    def test_the_log_says_where_history_begins_and_knows_the_names_of_before(self):
        first = self.trimmed()
        done = execute([self.program, "log", self.store])
        self.assertEqual(done.status, 0, done)
        self.assertEqual(done.err, f"reprise: {self.store}: history begins at batch {first}; what was before has been trimmed\n")
        lines = done.out.splitlines()
        self.assertEqual(int(lines[0].split()[0]), first)
        self.assertEqual([line for line in lines if "#" in line.split(None, 4)[4]], [])
        self.assertTrue(any("/a/deep/" in line or "/b/" in line for line in lines))

    def test_a_state_that_was_trimmed_is_refused_by_its_name_and_with_the_oldest_there_is(self):
        first = self.trimmed()
        oldest = min(record["log_index"] for record in map(
            __import__("json").loads, self.reprise("snapshot", "list", self.store, "--json").splitlines()))
        said = self.refused("ls", f"{self.store}@7", status=3)
        self.assertIn("after batch 7", said)
        self.assertIn(f"begins at batch {first}", said)
        self.assertIn(f"after batch {oldest}", said)
        self.reprise("ls", f"{self.store}@{oldest}")

    def test_what_a_stopped_journal_takes(self):
        self.write("a", 3)
        found = self.reprise_json("stat", self.store)["journal"]
        files = self.segments()
        self.assertGreater(len(files), 2)
        self.assertEqual(found["segments"], len(files))
        self.assertEqual(found["bytes_on_disk"], sum(path.stat().st_size for path in files))
        self.assertLessEqual(found["compressed_segments"], len(files) - 1)

    def test_a_missing_first_segment_is_told_from_one_that_was_trimmed(self):
        for trimmed in (False, True):
            with self.subTest(trimmed=trimmed):
                if trimmed:
                    self.trimmed()
                    self.reprise("verify", self.store)
                    self.run_inside(self.store, "true")
                else:
                    self.write("a", 3)
                copy = self.work / f"copy-{trimmed}"
                shutil.copytree(self.store, copy)
                # Trimming may go as far as the batch that it was asked for, whose segment stays.
                segments = sorted((copy / "branches/main/journal").glob("*.seg"))
                for path in segments[:-1]:
                    os.unlink(path)
                for command in (["run", "--store", copy, "--", "true"], ["log", copy], ["stat", copy]):
                    said = self.refused(*command, status=125 if command[0] == "run" else 3)
                    self.assertIn("segments at its beginning are missing", said)
                found = self.reprise("verify", copy, status=1)
                self.assertEqual(found.count("reprise repair"), 1, found)
                said = self.reprise("repair", copy)
                self.assertRegex(said, r"lost: the history of batches \d+ to \d+, but not the state after it\n")
                self.assertNotIn("which had been on the disk", said)
                self.reprise("verify", copy)
                self.run_inside(copy, "ls a; echo more > more")
                self.reprise("verify", copy)

    def test_what_repair_leaves_before_a_snapshot_is_set_aside(self):
        self.run_inside(self.store, "for i in 1 2 3; do echo $i > early-$i; done")
        self.run_inside(self.store, "for i in 1 2 3; do echo $i > late-$i; done")
        path, = self.segments()
        before = bytearray(path.read_bytes())
        for at in (300, 301):  # one wrong byte would be put right
            before[at] ^= 1
        path.write_bytes(before)
        found = self.reprise("verify", self.store, status=1)
        self.assertEqual(found.count("reprise repair"), 1, found)
        said = self.reprise("repair", self.store)
        self.assertNotIn("reprise repair", said)
        self.assertIn("the journal has no batches; a snapshot holds the state", said)
        kept = [line.removeprefix("kept aside: ") for line in said.splitlines() if line.startswith("kept aside: ")]
        self.assertEqual(len(kept), 1, said)
        self.run_inside(self.store, "cat early-1 late-3; echo more > more")
        self.reprise("verify", self.store)
        with open(kept[0], "rb") as aside:
            self.assertEqual(aside.read(), bytes(before))


if __name__ == "__main__":
    unittest.main()
