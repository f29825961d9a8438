"""What a store no longer needs is collected, beside a live instance or not; what it has lost is made good or said."""
import hashlib
import json
import os
import shutil
import struct
import threading
import time
import unittest

from harness import REPRISE, EndToEnd, execute


def newest_root(catalogue):
    """Where the page lies at which the newest state of an LMDB file begins."""
    metas = [struct.unpack_from("<2Q", catalogue, page + 136) + struct.unpack_from("<Q", catalogue, page + 128) for page in (0, 4096)]
    return max(metas, key=lambda meta: meta[1])[2] * 4096


# Two files in turn, and the sum of each.
WRITER = """
import hashlib, os, sys
for i in range(50):
    data, name = os.urandom(1_000_000), f"d/{sys.argv[1]}-{i % 2}"
    with open(name, "wb") as file:
        file.write(data)
    with open(name + ".sum", "w") as file:
        file.write(hashlib.sha256(data).hexdigest())
"""


def bytes_of(store):
    """What its files take, as far as they stay long enough to be looked at."""
    total = 0
    for folder, _, names in os.walk(store):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                pass
    return total


def bytes_of_packs(store):
    return sum(path.stat().st_size for path in (store / "packs").glob("*.pack"))


class Collect(EndToEnd):
    def snapshots(self, store):
        return [json.loads(line) for line in self.reprise("snapshot", "list", "--json", store).splitlines()]

    def test_deleting_frees_what_nothing_else_needs(self):
        store = self.work / "S"
        self.run_inside(store, "head -c 2000000 /dev/urandom > kept; head -c 3000000 /dev/urandom > gone")
        self.reprise("snapshot", "create", store, "--label", "first")
        self.run_inside(store, "rm gone")
        self.reprise("snapshot", "create", store, "--label", "second one")
        first, second = [each for each in self.snapshots(store) if not each["checkpoint"]]
        self.assertGreater(first["own_bytes"] + first["shared_bytes"], 5_000_000)
        self.assertLess(second["own_bytes"], 1_000_000)
        shown = self.reprise_json("snapshot", "show", store, "second one")
        self.assertEqual({key: shown[key] for key in ("id", "label", "log_index", "position")},
                         {key: second[key] for key in ("id", "label", "log_index", "position")})
        self.assertIn("second one", self.reprise("snapshot", "list", store))
        self.refused("snapshot", "delete", store, "no such", status=3)
        self.refused("snapshot", "show", store, "77", status=3)
        before = bytes_of_packs(store)
        self.assertIn(f"snapshot {first['id']} is deleted", self.reprise("snapshot", "delete", store, "first"))
        for each in self.snapshots(store):
            if each["checkpoint"] and each["log_index"] <= first["log_index"]:
                self.reprise("snapshot", "delete", store, str(each["id"]))
        self.reprise("compact", store)
        self.assertLess(bytes_of_packs(store), before - 2_900_000)
        self.reprise("verify", store)
        self.run_inside(store, "test $(stat -c %s kept) = 2000000 && test ! -e gone")
        # What the branch is opened from is not taken away.
        self.reprise("snapshot", "create", store, "--label", "last", "--trim")
        for each in self.snapshots(store):
            self.reprise("snapshot", "delete", store, str(each["id"]))
        self.assertNotEqual(self.snapshots(store), [])
        self.reprise("verify", store)
        self.run_inside(store, "test $(stat -c %s kept) = 2000000")

    def test_beside_a_live_instance_and_other_processes(self):
        store = self.work / "S"
        guest = self.guest(store)
        stop = threading.Event()
        failures = []

        def compact():
            while not stop.is_set():
                done = execute([REPRISE, "compact", store])
                if done.status != 0:
                    failures.append(str(done))

        collector = threading.Thread(target=compact)
        collector.start()
        try:
            for i in range(12):
                guest.sh(f"head -c 400000 /dev/urandom > file{i % 3}; cp file{i % 3} again{i % 2}")
                self.reprise("mark", store, f"m{i}")
                self.reprise("snapshot", "create", store, "--label", f"live {i}")
                if i > 1:
                    # By a process of its own, with the instance live.
                    self.reprise("snapshot", "create", f"{store}@m{i - 1}", "--label", f"past {i}")
                    self.reprise("snapshot", "delete", store, f"live {i - 1}")
        finally:
            stop.set()
            collector.join()
        self.assertEqual(failures, [])
        self.assertEqual(guest.end(), 0)
        self.reprise("verify", store)
        for i in range(2, 12):
            self.assertEqual(len([each for each in self.snapshots(store) if each["label"] == f"past {i}"]), 1)

    def test_a_state_of_the_past_is_kept(self):
        store = self.work / "S"
        guest = self.guest(store)
        guest.sh("echo one > file")
        self.reprise("mark", store, "one")
        guest.sh("echo two > file")
        self.reprise("snapshot", "create", f"{store}@one", "--label", "past")
        self.refused("snapshot", "create", f"{store}@one", "--trim", status=2)
        self.refused("snapshot", "create", f"{store}@nothing", status=3)
        self.assertEqual(guest.end(), 0)
        past = self.reprise_json("snapshot", "show", store, "past")
        self.assertEqual(self.reprise("cat", f"{store}@{past['log_index']}:/file"), "one\n")
        self.assertEqual(past["digest"], self.reprise("digest", f"{store}@one").strip())
        self.assertEqual(self.reprise_json("snapshot", "show", store, "@one")["id"], past["id"])

    def test_a_limit_is_kept_while_several_write_as_fast_as_they_may(self):
        """Several programs in one mount, six times the limit; a branch is joined and a snapshot is taken meanwhile."""
        limit = 24 << 20
        store = self.work / "S"
        self.run_inside(store, "mkdir d")
        self.reprise("fork", store, "b")
        self.run_inside(f"{store}:b", "head -c 3000000 /dev/urandom > from-b")
        guest = self.guest(store, "--store-limit", "24M")
        writer = self.work / "writer.py"
        writer.write_text(WRITER)
        guest.tell("import subprocess, sys\n"
                   f"all = [subprocess.Popen([sys.executable, {str(writer)!r}, str(n)]) for n in range(3)]\n"
                   "result = [one.wait() for one in all]")
        most, looks, done = 0, 0, threading.Event()

        def watch():
            nonlocal most, looks
            while not done.is_set():
                # One may have gone before another grew: what was there both times.
                most = max(most, min(bytes_of(store), bytes_of(store)))
                looks += 1

        watcher = threading.Thread(target=watch)
        watcher.start()
        self.reprise("join", store, "b")
        self.reprise("snapshot", "create", store)
        try:
            self.assertEqual(guest.answer(), [0, 0, 0])
        finally:
            done.set()
            watcher.join()
        self.assertGreater(looks, 10)
        # Beside it the branch and the snapshot, for which room is made when they are there.
        self.assertLessEqual(most, limit + 9_000_000)
        self.assertEqual(guest.end(), 0)
        self.reprise("verify", store)
        self.reprise("replay", store, "--onto", self.work / "out")
        self.assertEqual((self.work / "out/from-b").stat().st_size, 3_000_000)
        for path in (self.work / "out/d").glob("*.sum"):
            self.assertEqual(hashlib.sha256(path.with_suffix("").read_bytes()).hexdigest(), path.read_text())

    def test_a_limit_of_the_store(self):
        store = self.work / "S"
        guest = self.guest(store, "--store-limit", "20M")
        for i in range(30):
            guest.sh(f"head -c 2000000 /dev/urandom > file{i % 3}")
            if i % 5 == 0:
                self.reprise("snapshot", "create", store)
        for _ in range(40):
            disk = self.stat(store)["disk"]
            if disk["bytes"] <= disk["limit"]:
                break
            time.sleep(0.25)
        self.assertLessEqual(disk["bytes"], 20 << 20, disk)
        self.assertEqual(disk["limit"], 20 << 20)
        self.assertNotIn("over_limit", disk)
        self.assertEqual(guest.end(), 0)
        self.reprise("verify", store)

    def test_values_that_are_none(self):
        for option in ("--journal-limit", "--journal-age", "--store-limit", "--snapshots", "--snapshot-age", "--volume-size",
                       "--volume-inodes"):
            for value in ("", "x", "0"):
                with self.subTest(option=option, value=value):
                    self.assertIn(option, self.refused("run", "--store", self.work / "N", option, value, "--", "true", status=125))
        self.assertFalse((self.work / "N").exists())

    def test_verify_answers_whatever_byte_of_the_catalogue_is_wrong(self):
        """A record that cannot be read is damage as any other: the answer is "no", and no failure of `verify`."""
        store = self.work / "S"
        self.run_inside(store, "echo x > file")
        self.reprise("snapshot", "create", store, "--label", "kept")
        catalogue = store / "catalogue.lmdb"
        honest = catalogue.read_bytes()
        places = [honest.index(b"kept") - back for back in range(0, 120, 4)]
        places += [place + back for place in (honest.index(b"main"), honest.rindex(b"main")) for back in range(-24, 24, 3)]
        seen = set()
        for place in places:
            with self.subTest(place=place):
                catalogue.write_bytes(honest[:place] + bytes([honest[place] ^ 0xff]) + honest[place + 1:])
                done = execute([REPRISE, "verify", store])
                self.assertIn(done.status, (0, 1), done)
                self.assertEqual("damaged: " in done.out, done.status == 1, done)
                seen.add(done.status)
        self.assertIn(1, seen)
        catalogue.write_bytes(honest)
        self.reprise("verify", store)

    def test_a_catalogue_that_is_lost_is_made_anew(self):
        store = self.work / "S"
        guest = self.guest(store)
        guest.sh("head -c 500000 /dev/urandom > file; mkdir d; echo x > d/x")
        self.reprise("mark", store, "one")
        self.reprise("snapshot", "create", store, "--label", "kept")
        guest.sh("echo y > d/y")
        self.reprise("mark", store, "two")
        self.assertEqual(guest.end(), 0)
        before = self.snapshots(store), self.reprise("digest", "--content", store), self.reprise("ls", f"{store}@one:/d")
        catalogue = store / "catalogue.lmdb"
        honest = catalogue.read_bytes()
        root = newest_root(honest)
        for name, damage in (("missing", None), ("empty", b""), ("cut", honest[:len(honest) // 2]), ("garbage", os.urandom(len(honest))),
                             ("a page of garbage", honest[:root] + os.urandom(4096) + honest[root + 4096:])):
            with self.subTest(name):
                copy = self.work / "C"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(store, copy)
                if damage is None:
                    (copy / "catalogue.lmdb").unlink()
                else:
                    (copy / "catalogue.lmdb").write_bytes(damage)
                for command in (["stat", copy], ["snapshot", "list", copy], ["mark", copy, "m"]):
                    said = self.refused(*command, status=3)
                    self.assertIn(str(copy / "catalogue.lmdb"), said)
                    self.assertIn("reprise repair", said)
                self.assertIn("damaged: ", self.reprise("verify", copy, status=1))
                repaired = self.reprise("repair", copy)
                self.assertIn("the catalogue has been made anew", repaired)
                self.assertIn("the mark two", repaired)
                if damage:
                    self.assertEqual((copy / "catalogue.lmdb.damaged").read_bytes(), damage)
                age = {"age_s"}
                strip = lambda all: [{key: value for key, value in each.items() if key not in age} for each in all]
                self.assertEqual(strip(self.snapshots(copy)), strip(before[0]))
                self.assertEqual(self.reprise("digest", "--content", copy), before[1])
                self.assertEqual(self.reprise("ls", f"{copy}@one:/d"), before[2])
                self.reprise("verify", copy)
                self.assertIn("nothing to repair", self.reprise("repair", copy))
                self.run_inside(copy, "echo z > d/z")

    def test_a_damaged_pack_is_set_aside(self):
        store = self.work / "S"
        self.run_inside(store, "head -c 500000 /dev/urandom > file; echo x > x")
        self.reprise("snapshot", "create", store, "--label", "whole")
        pack = store / "packs/00000001.pack"
        honest = pack.read_bytes()
        pack.write_bytes(honest[:len(honest) // 2] + b"damage" + honest[len(honest) // 2 + 6:])
        found = self.reprise("verify", store, status=1)
        self.assertIn(str(pack), found)
        self.assertRegex(found, r"snapshot \d+: .*expected blob [0-9a-f]+")
        repaired = self.reprise("repair", store)
        self.assertIn("lost: snapshot", repaired)
        self.assertIn("00000001.pack.damaged", repaired)
        self.reprise("verify", store)
        # The journal has everything.
        self.run_inside(store, "test $(stat -c %s file) = 500000")
        self.reprise("verify", store)


if __name__ == "__main__":
    unittest.main(verbosity=2)
