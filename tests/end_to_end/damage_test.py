"""Segments cut and bytes flipped: above the durable mark the journal opens at the last whole batch, below it is refused."""
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import unittest

from harness import REPRISE, EndToEnd, execute

LIBRARY = os.environ["FAILING_DISK_LIBRARY"]
FRAME_BYTES = 80
BATCH, CLOSE = 1, 2


class Frame:
    """A frame of a segment, read as docs/journal-format.md says."""

    def __init__(self, data, offset):
        magic, self.kind, _, message, body, self.index, self.durable_through = struct.unpack_from("<4sHHIIQQ", data, offset)
        if magic != b"FRM1":
            raise ValueError(f"no frame at {offset}")
        self.offset, self.end = offset, offset + FRAME_BYTES + message + body


def frames_of(segment):
    data = segment.read_bytes()
    offset, = struct.unpack_from("<I", data, 12)
    frames = []
    while offset < len(data):
        frames.append(Frame(data, offset))
        offset = frames[-1].end
    return frames


class Damage(EndToEnd):
    """A store with a clean close after some batches, and then more, until the process was killed."""

    @classmethod
    def setUpClass(cls):
        cls.chance = random.Random(4)

    def setUp(self):
        super().setUp()
        self.store = self.work / "S"
        self.run_inside(self.store, "for i in 1 2 3 4 5 6; do echo $i > before-$i; done; mkdir d; mv before-1 d; ln -s d l")
        self.closed_at = self.reprise_json("snapshot", "list", self.store)["log_index"]
        writer = self.guest(self.store)
        writer.do("import os")
        steps = [step for i in range(12) for step in (f"f = open('after-{i}', 'wb')", f"f.write(bytes([{i}]) * 400 * {i}); f.close()")]
        steps += ["os.rename('after-0', 'd/moved')", "os.unlink('after-1')", "os.chmod('after-2', 0o600)"]
        for number, step in enumerate(steps):
            writer.do(step)
            self.ask(self.store, ask="stat")  # has the instance write what it has gathered: a batch for each step
            if number in (7, 15):
                writer.do("f = os.open('after-2', os.O_RDONLY); os.fsync(f); os.close(f)")
        writer.kill()
        self.segment = self.store / "branches/main/journal/0000000001.seg"
        self.copies = 0
        self.frames = frames_of(self.segment)
        self.batches = [frame for frame in self.frames if frame.kind == BATCH]
        self.assertEqual([frame.index for frame in self.batches], list(range(1, len(self.batches) + 1)))
        self.assertGreater(len(self.batches), self.closed_at + 12)
        # What the catalogue knows to be durable is the clean close, and perhaps the start of the next origin, which is on the
        # disk before anything else is done.
        self.below, self.above = (self.batches[index - 1].end for index in (self.closed_at, self.closed_at + 1))
        self.contents = {}

    def content_at(self, index):
        """Content digest of the undamaged store after batch `index`."""
        if index not in self.contents:
            self.contents[index] = self.reprise("digest", "--content", f"{self.store}@{index}")
        return self.contents[index]

    def damaged_copy(self, damage):
        """Another store with the segment's bytes changed by damage(bytearray), and the path of its segment."""
        self.copies += 1
        copy = self.work / f"copy-{self.copies}"
        shutil.copytree(self.store, copy, ignore=shutil.ignore_patterns("control"))  # the socket of who was killed
        segment = copy / self.segment.relative_to(self.store)
        data = bytearray(segment.read_bytes())
        damage(data)
        segment.write_bytes(data)
        return copy, segment

    def cut_copy(self, length):
        def cut(data):
            del data[length:]
        return self.damaged_copy(cut)

    def flipped_copy(self, place):
        """More is wrong than could be put right, within one frame's header or one batch."""
        def flip(data):
            data[place] ^= 1 << self.chance.randrange(8)
            data[place ^ 1] ^= 1 << self.chance.randrange(8)
        return self.damaged_copy(flip)

    def check_opens_at(self, store, segment, last):
        """Opens at the end of batch `last`, says what it cut, and goes on from there."""
        size = segment.stat().st_size
        # The close behind the batch, if there is one, is whole too.
        end = max(frame.end for frame in self.frames
                  if frame.end <= size and (frame.index <= last or (frame.kind == CLOSE and frame.index == last + 1)))
        self.reprise("verify", store)
        self.assertEqual(self.reprise("digest", "--content", store), self.content_at(last))
        done = execute([REPRISE, "run", "--store", store, "--", "true"])
        self.assertEqual(done.status, 0, done)
        behind = sum(frame.kind == BATCH and frame.index > last + 1 and frame.end <= size for frame in self.frames)
        whole = f", with {behind} whole batches that were never said to be on the disk" if behind else ""
        expected = (f"reprise: {segment}: cut a torn tail of {size - end} bytes at offset {end}{whole}; "
                    "everything before it is there\n" if size > end else "")
        self.assertEqual(done.err, expected)
        self.assertEqual(self.reprise("digest", "--content", store), self.content_at(last))
        self.run_inside(store, "echo more > more")
        self.reprise("verify", store)
        self.assertNotEqual(self.reprise("digest", "--content", store), self.content_at(last))

    def check_refused(self, store, segment, lost):
        """Neither opened nor changed, by any command; repair keeps what it cuts, and then it opens."""
        before = segment.read_bytes()
        said = self.refused("run", "--store", store, "--", "true", status=125)
        self.assertIn(f"{segment}: ", said)
        self.assertRegex(said, rf"log index {lost}\b")
        if lost > 1:
            self.assertRegex(said, rf"after LSN \d+ of origin [0-9a-f]+")
        self.assertIn("reprise repair", said)
        self.assertIn(str(segment), self.refused("mark", store, "name", status=3))
        # Those that only read believe it no more; a snapshot made before may stand for what is damaged.
        self.assertIn(str(segment), self.refused("replay", store, "--onto", self.work / "half", status=3))
        self.assertFalse((self.work / "half").exists())
        done = execute([REPRISE, "log", store])
        self.assertEqual(done.status, 3, done)
        self.assertIn(str(segment), done.err)
        found = self.reprise("verify", store, status=1)
        self.assertIn("damaged: ", found)
        self.assertEqual(found.count("reprise repair"), 1, found)
        self.assertIn(str(segment), found)
        self.assertEqual(segment.read_bytes(), before)

        whole = max(frame.index for frame in self.batches)  # of them there had been
        there = max((frame.index for frame in self.batches if frame.end <= len(before)), default=0)
        # The batches behind the damage go on from the snapshot, if that lies behind it.
        last = max(there, self.closed_at) if lost <= self.closed_at else lost - 1
        said = self.reprise("repair", store)
        lost_batches = re.search(r"^lost: batch(?:es)? (\d+)(?: to (\d+))?, which", said, re.MULTILINE)
        if last == whole or len(before) < self.segment.stat().st_size:
            self.assertTrue(lost_batches is None or int(lost_batches[1]) > last, said)
        else:
            self.assertEqual((int(lost_batches[1]), int(lost_batches[2] or lost_batches[1])), (last + 1, whole), said)
        self.assertNotRegex(said, r"batch(es)? \d+ to 0\b")
        # Every byte is in its place, or in one that was named, or in both together.
        kept = sorted(segment.parent.glob("*.cut-*"))
        for path in kept:
            self.assertIn(f"kept aside: {path}\n", said)
        left = [segment] if segment.exists() else []
        self.assertIn(before, [b"".join(path.read_bytes() for path in [*left, *kept]), *(path.read_bytes() for path in kept)])
        self.reprise("verify", store)
        self.assertEqual(self.reprise("digest", "--content", store), self.content_at(last))
        self.run_inside(store, "test -e before-2; echo more > more")
        self.reprise("verify", store)

    def test_marks_of_what_was_lost_are_lost_too(self):
        """A mark is on the disk, which a cut below it shows; and it never comes to mean what is written later."""
        store = self.work / "M"
        guest = self.guest(store)
        for name in ("one", "two"):
            guest.sh(f"echo {name} > {name}")
            self.reprise("mark", store, name)
        guest.kill()
        segment = store / "branches/main/journal/0000000001.seg"
        whole = segment.read_bytes()
        segment.write_bytes(whole[:-8 * 20])
        self.assertIn(str(segment), self.refused("run", "--store", store, "--", "true", status=125))
        self.assertIn("lost: the mark two\n", self.reprise("repair", store))
        self.run_inside(store, "for i in 1 2 3 4 5 6 7 8; do echo $i > other$i; done")
        self.assertIn('no mark "two"', self.refused("ls", f"{store}@two", status=3))
        self.assertEqual(self.reprise("ls", f"{store}@one"), "one\n")

    def test_history_that_only_a_snapshot_has_left_is_said_to_be_lost(self):
        """And marks in it name nothing that is missed: `verify` agrees with what `repair` has left."""
        for taken in ("spoiled", "removed"):
            store = self.work / taken
            self.run_inside(store, "echo a > a")
            self.reprise("mark", store, "early")
            self.run_inside(store, "echo b > b")
            last = self.reprise_json("stat", store)["journal"]["last"]
            for segment in (store / "branches/main/journal").iterdir():
                if taken == "removed":
                    segment.unlink()
                    continue
                whole = bytearray(segment.read_bytes())
                whole[100:140] = whole[-300:-260] = b"x" * 40
                segment.write_bytes(whole)
            self.reprise("verify", store, status=1)
            said = self.reprise("repair", store)
            self.assertIn(f"lost: the history of batches 1 to {last}, but not the state after it\n", said)
            self.reprise("verify", store)
            self.assertTrue(self.reprise("repair", store).startswith("nothing to repair"))
            self.assertEqual(self.reprise("ls", store), "a\nb\n")
            self.run_inside(store, "echo c > c")
            self.reprise("verify", store)

    def test_what_is_no_file_keeps_nobody_waiting_and_nothing_outside_is_written(self):
        outside = self.work / "outside"

        def put(path, kind):
            if path.exists() or path.is_symlink():
                path.unlink()
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "socket":
                with socket.socket(socket.AF_UNIX) as made:
                    made.bind(str(path))
            elif kind == "directory":
                path.mkdir()
            else:
                path.symlink_to({"link": outside, "nowhere": self.work / "nothing", "circle": path}[kind])

        for kind in ("pipe", "socket", "directory", "link", "nowhere", "circle"):
            for name in ("branches/main/lock", "catalogue.lmdb-lock", "catalogue.lmdb", "branches/main/journal/0000000001.seg",
                         "branches/main/journal/0000000001.seg.new"):
                store = self.work / f"{kind}-{name.rsplit('/', 1)[-1]}"
                self.run_inside(store, "echo a > a; sync; echo b > b")
                outside.write_bytes(b"somebody's own")
                put(store / name, kind)
                with self.subTest(kind=kind, name=name):
                    for command in ("verify", "stat", "ls", "repair", "verify"):
                        status = execute([REPRISE, command, store], timeout=20).status
                        self.assertIn(status, (0, 1, 3), command)
                    status = execute([REPRISE, "run", "--store", store, "--", "true"], timeout=20).status
                    self.assertIn(status, (0, 125))
                    self.assertEqual(outside.read_bytes(), b"somebody's own")
                    self.assertFalse((self.work / "nothing").exists())
        store = self.work / "mountpoint"
        self.run_inside(store, "true")
        (store / "mnt").symlink_to(self.work / "nothing")
        self.assertIn("mnt", self.refused("run", "--store", store, "--", "true", status=125, timeout=20))

    def test_what_is_no_file_is_set_aside_wherever_a_file_should_be(self):
        """And all is there that did not lie in it."""
        made = self.work / "made"
        self.run_inside(made, "echo a > a; sync; echo b > b")
        self.reprise("snapshot", "create", made, "--label", "keep")
        listed = self.reprise("ls", made)
        copy = min(path.name for path in (made / "snapshots").iterdir())
        for name in ("packs/00000001.pack", "packs/00000009.pack", f"snapshots/{copy}", "catalogue.lmdb", "reprise.store"):
            for kind in ("directory", "pipe", "socket", "nowhere", "circle", "device"):
                store = self.work / f"{kind}-{name.replace('/', '-')}"
                shutil.copytree(made, store)
                path = store / name
                path.unlink(missing_ok=True)
                if kind == "directory":
                    (path / "inside").mkdir(parents=True)
                elif kind == "pipe":
                    os.mkfifo(path)
                elif kind == "socket":
                    with socket.socket(socket.AF_UNIX) as bound:
                        bound.bind(str(path))
                else:
                    path.symlink_to({"nowhere": self.work / "nothing", "circle": path, "device": "/dev/zero"}[kind])
                with self.subTest(name=name, kind=kind):
                    self.assertIn(str(path), self.reprise("verify", store, status=1, timeout=20))
                    said = self.reprise("repair", store, timeout=20)
                    self.assertIn(f"kept aside: {path}.damaged\n", said)
                    self.assertTrue(os.path.lexists(f"{path}.damaged"))
                    self.reprise("verify", store, timeout=20)
                    self.assertEqual(self.reprise("ls", store), listed)
                    self.run_inside(store, "echo c > c")
                    self.reprise("verify", store)

    def test_the_file_that_names_the_volume_is_made_anew(self):
        made = self.work / "made"
        self.run_inside(made, "echo a > a")
        whole = (made / "reprise.store").read_bytes()
        bits = [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1:] for at in range(len(whole))]
        for number, damaged in enumerate([*bits, bytes(48), b"", whole[:20], whole + b"x", bytes(10000)]):
            store = self.work / f"identity-{number}"
            shutil.copytree(made, store)
            (store / "reprise.store").write_bytes(damaged)
            with self.subTest(number=number):
                self.assertIn(f"{store}/reprise.store: expected", self.reprise("verify", store, status=1))
                self.assertIn("reprise repair", self.refused("run", "--store", store, "--", "true", status=125))
                said = self.reprise("repair", store)
                self.assertIn(f"kept aside: {store}/reprise.store.damaged\nmade anew: {store}/reprise.store\n", said)
                self.assertEqual((store / "reprise.store").read_bytes(), whole)
                self.assertEqual((store / "reprise.store.damaged").read_bytes(), damaged)
                self.reprise("verify", store)
            shutil.rmtree(store)
        # Nothing is guessed: another volume's pack in it, and it cannot be told.
        other = self.work / "other"
        self.run_inside(other, "echo b > b")
        shutil.copy(other / "packs/00000001.pack", made / "packs/00000007.pack")
        (made / "reprise.store").write_bytes(bytes(48))
        self.assertIn("one volume, found 2", self.reprise("repair", made, status=1))
        self.assertEqual((made / "reprise.store").read_bytes(), bytes(48))

    def test_a_catalogue_that_is_rolled_back_by_a_wrong_byte_loses_no_snapshot(self):
        """LMDB takes the state before the last transaction if the number of the newest is damaged."""
        made = self.work / "made"
        self.run_inside(made, "echo a > a")
        self.reprise("snapshot", "create", made, "--label", "keep")
        catalogue = (made / "catalogue.lmdb").read_bytes()
        newest = max((0, 4096), key=lambda page: struct.unpack_from("<Q", catalogue, page + 144))
        number, = struct.unpack_from("<Q", catalogue, newest + 144)
        noticed = 0
        for wrong in {0, *(number ^ 1 << bit for bit in range(64)), number - 1, number - 2, number - 3, number - 4}:
            for way in ("repaired", "opened"):
                store = self.work / f"number-{wrong}-{way}"
                shutil.copytree(made, store)
                with open(store / "catalogue.lmdb", "r+b") as file:
                    file.seek(newest + 144)
                    file.write(struct.pack("<Q", wrong))
                with self.subTest(number=number, wrong=wrong, way=way):
                    found = execute([REPRISE, "verify", store])
                    # Only two less cannot be told from a process that was killed before it had made the snapshot.
                    self.assertEqual(found.status, 0 if wrong == number - 2 else 1, found)
                    if found.status == 0:
                        noticed += 1
                        self.assertRegex(found.out, "not in the catalogue.*snapshot")
                    if way == "repaired":
                        self.assertIn("found: ", self.reprise("repair", store))
                    elif found.status == 0:
                        self.run_inside(store, "true")
                    else:
                        self.refused("run", "--store", store, "--", "true", status=125)
                        self.reprise("repair", store)
                    self.assertEqual(self.reprise("verify", store).count("\n"), 1)
                    self.assertIn("keep", self.reprise("snapshot", "list", store))
                    self.reprise("compact", store)
                    self.assertIn("keep", self.reprise("snapshot", "list", store))
                shutil.rmtree(store)
        self.assertGreaterEqual(noticed, 1)

    def test_the_file_that_names_the_directory_below_is_named_and_put_right(self):
        """And before the journal is looked at, of which nothing is set aside for it."""
        below = self.work / "below"
        below.mkdir()
        (below / "there").write_text("there")
        made = self.work / "made"
        for step in ("echo one > one", "echo two > two"):
            self.reprise("run", "--from", below, "--store", made, "--", "sh", "-euc", step)
        whole = (made / "base").read_bytes()
        listed = self.reprise("ls", made)
        segment = max((made / "branches/main/journal").iterdir()).relative_to(made)
        for at in range(len(whole)):
            store = self.work / f"base-{at}"
            shutil.copytree(made, store)
            (store / "base").write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1:])
            if at % 8 == 0:
                journal = bytearray((store / segment).read_bytes())
                journal[200] ^= 1
                (store / segment).write_bytes(journal)
            with self.subTest(at=at):
                found = self.reprise("verify", store, status=1)
                self.assertEqual(found.count(f"damaged: {store}/base: "), 1, found)
                said = self.reprise("repair", store)
                self.assertIn(f"kept aside: {store}/base.damaged\nmade anew: {store}/base\n", said)
                self.assertNotIn(".cut-", said)
                self.assertEqual((store / "base").read_bytes(), whole)
                self.reprise("verify", store)
                self.assertEqual(self.reprise("ls", store), listed)
            shutil.rmtree(store)
        (made / "base").write_bytes(whole[::-1])
        journal = bytearray((made / segment).read_bytes())
        journal[200:300] = bytes(100)
        (made / segment).write_bytes(journal)
        self.assertIn(f"cannot be opened: {made}/base: ", self.reprise("repair", made, status=1))
        self.assertEqual((made / segment).read_bytes(), journal)
        self.assertEqual((made / "base").read_bytes(), whole[::-1])

    def test_other_branches_are_read_or_said_not_to_be(self):
        store = self.work / "B"
        self.run_inside(store, "echo a > a")
        self.assertNotIn("branch", self.reprise("verify", store))
        for name in ("one", "two"):
            self.reprise("fork", store, name)
            self.run_inside(f"{store}:{name}", "for i in 1 2 3 4; do echo $i > $i; sync; done")
        segment = max((store / "branches/two/journal").glob("*.seg"))
        for frame in [frame for frame in frames_of(segment) if frame.kind == BATCH][:3:2]:
            data = bytearray(segment.read_bytes())
            data[frame.offset + 8:frame.offset + 20] = bytes(12)
            segment.write_bytes(data)
        said = self.reprise("verify", store)
        self.assertIn("read was branch main, and 2 others were not: --all-branches reads every one\n", said)
        self.assertEqual(json.loads(self.reprise("verify", "--json", store))["other_branches"], 2)
        said = self.reprise("verify", "--all-branches", store, status=1)
        for name in ("main", "one", "two"):
            self.assertRegex(said, rf"(?m)^branch {name}: \d+ segments, ")
        self.assertEqual(len(re.findall(rf"(?m)^damaged: {segment}: at offset", said)), 2, said)
        self.assertNotIn("others", said)
        found = json.loads(self.reprise("verify", "--all-branches", "--json", store, status=1))
        self.assertEqual(sorted(found["branches"]), ["main", "one", "two"])
        self.assertEqual(len(found["problems"]), 2)
        self.reprise("repair", f"{store}:two")
        self.reprise("verify", "--all-branches", store)

    def test_what_is_larger_than_the_disk_and_empty_is_no_work(self):
        """Holes are not read, and what is kept aside has them too."""
        length = 1 << 40
        for name in ("branches/main/journal/0000000001.seg", "packs/00000001.pack", "catalogue.lmdb"):
            for emptied in (False, True):
                store = self.work / f"{emptied}-{name.rsplit('/', 1)[-1]}"
                self.run_inside(store, "echo a > a")
                if emptied:
                    os.truncate(store / name, 0)
                os.truncate(store / name, length)
                with self.subTest(name=name, emptied=emptied):
                    for command in ("verify", "repair", "verify"):
                        done = execute([REPRISE, command, store], timeout=60)
                        self.assertIn(done.status, (0, 1), done)
                        if command == "repair" and "branches" in name:
                            self.assertIn("that is 1.10 TB taken out\n", done.out)
                    self.assertLess(sum(path.stat().st_blocks for path in store.rglob("*") if path.is_file()), 4096)

    def test_a_repair_that_is_killed_is_done_by_the_next_one(self):
        """Snapshots that only the catalogue knows, and marks that only the journal does, are there afterwards."""
        made = self.work / "made"
        for name in ("one", "two"):
            self.run_inside(made, f"echo {name} > {name}")
            self.reprise("snapshot", "create", made, "--label", name)
        self.reprise("mark", made, "here")
        for lost in ("copy", "catalogue"):
            for at in itertools.count(1):
                store = self.work / f"{lost}-{at}"
                shutil.copytree(made, store)
                if lost == "catalogue":
                    (store / "catalogue.lmdb").unlink()
                else:
                    os.truncate(min((store / "snapshots").iterdir()), 50)
                killed = execute([REPRISE, "repair", store], env={
                    "LD_PRELOAD": LIBRARY, "FAILING_DISK": str(store), "FAILING_DISK_KILL": str(at)})
                self.assertIn(killed.status, (0, -signal.SIGKILL), killed)
                self.reprise("repair", store)
                self.reprise("verify", store)
                kept = self.reprise("snapshot", "list", store)
                with self.subTest(lost=lost, at=at):
                    self.assertIn("one", kept)
                    self.assertIn("two", kept)
                    self.assertEqual(self.reprise("ls", f"{store}@here"), "one\ntwo\n")
                shutil.rmtree(store)
                if killed.status == 0:
                    break
            self.assertGreater(at, 10)

    def test_marks_are_found_in_a_journal_that_is_repaired_as_well(self):
        store = self.work / "K"
        for name in ("early", "late"):
            self.run_inside(store, f"echo {name} > {name}")
            self.reprise("mark", store, name)
        (store / "catalogue.lmdb").unlink()
        segment = store / "branches/main/journal/0000000001.seg"
        whole = bytearray(segment.read_bytes())
        whole[len(whole) // 3] ^= 1
        segment.write_bytes(whole)
        said = self.reprise("repair", store)
        for name in ("early", "late"):
            self.assertIn(f"found in the journal: the mark {name}\n", said)
        self.assertEqual(self.reprise("ls", f"{store}@early"), "early\n")
        self.reprise("verify", store)

    def test_marks_are_found_where_the_state_is_known_and_the_others_named(self):
        store = self.work / "K"
        self.run_inside(store, "echo a > a")
        self.reprise("snapshot", "create", store, "--label", "first", "--trim")
        for name in ("b", "c"):
            self.run_inside(store, f"echo {name} > {name}")
            self.reprise("mark", store, name)
            if name == "c":
                self.reprise("snapshot", "create", store, "--label", "second")
        self.run_inside(store, "echo d > d")
        self.reprise("mark", store, "d")
        second, = (record["id"] for record in map(json.loads, self.reprise("snapshot", "list", "--json", store).splitlines())
                   if record["label"] == "second")
        (store / "catalogue.lmdb").unlink()
        for copy in (store / "snapshots").glob("*.snapshot"):  # all before the second
            if int(copy.stem) < second:
                copy.unlink()
        said = self.reprise("repair", store)
        self.assertIn("lost: the mark b: its batch is there", said)
        for name in ("c", "d"):
            self.assertIn(f"found in the journal: the mark {name}\n", said)
        self.assertEqual(self.reprise("ls", f"{store}@c"), "a\nb\nc\n")
        self.assertIn("nothing to repair", self.reprise("repair", store))
        self.reprise("verify", store)
        self.assertEqual(self.run_inside(store, "ls"), "a\nb\nc\nd\n")

    def test_with_a_lost_catalogue_no_branch_loses_its_journal(self):
        store = self.work / "B"
        self.run_inside(store, "echo a > a")
        self.reprise("fork", store, "two")
        self.reprise("fork", store, "untouched")
        self.run_inside(f"{store}:two", "for i in 1 2 3; do echo $i > $i; sync $i; done")
        segment, = (store / "branches/two/journal").glob("*.seg")
        first, *others = (frame for frame in frames_of(segment) if frame.kind == BATCH)
        self.assertGreater(len(others), 1)
        segment.write_bytes(segment.read_bytes()[:first.end])
        (store / "catalogue.lmdb").unlink()
        left = segment.read_bytes()
        self.reprise("repair", store)
        self.assertEqual(self.run_inside(f"{store}:untouched", "ls"), "a\n")
        for _ in range(2):
            self.refused("run", "--store", f"{store}:two", "--", "true", status=125)
            self.assertEqual(segment.read_bytes(), left)
        said = self.reprise("repair", f"{store}:two")
        self.assertIn("kept aside: ", said)
        kept = [path.read_bytes() for path in segment.parent.iterdir() if path != segment]
        self.assertIn(left, kept)
        self.assertEqual(self.run_inside(f"{store}:two", "ls"), "1\n2\n3\na\n")

    def test_a_table_that_the_catalogue_has_lost_is_no_empty_one(self):
        store = self.work / "T"
        self.run_inside(store, "echo a > a")
        self.reprise("snapshot", "create", store, "--label", "kept")
        catalogue = store / "catalogue.lmdb"
        whole = catalogue.read_bytes()
        self.assertIn(b"snapshots", whole)
        catalogue.write_bytes(whole.replace(b"snapshots", b"snapshotz"))
        self.assertIn("tables", self.reprise("verify", store, status=1))
        self.refused("run", "--store", store, "--", "true", status=125)
        self.reprise("repair", store)
        self.assertIn("kept", self.reprise("snapshot", "list", store))
        self.reprise("verify", store)

    def test_a_snapshot_that_cannot_be_read_is_no_empty_tree(self):
        store = self.work / "E"
        self.run_inside(store, "echo a > a")
        for pack in (store / "packs").iterdir():
            pack.write_bytes(b"x" * pack.stat().st_size)
        for segment in (store / "branches/main/journal").iterdir():
            segment.unlink()
        for command in (["ls", store], ["digest", store], ["diff", store, f"dir:{self.work}"], ["snapshot", "export", store, self.work / "out"]):
            self.assertIn("packs", self.refused(*command, status=3))
        self.assertFalse((self.work / "out").exists())

    def test_cut_above_the_durable_mark(self):
        ends = [frame.end for frame in self.frames if frame.end > self.above]
        size = self.segment.stat().st_size
        lengths = {self.above, self.above + 1, size - 1, size}
        for end in self.chance.sample(ends, 8):
            lengths |= {end - 1, end, min(end + self.chance.choice((1, 8, 79, 80, 81)), size)}
        lengths |= {self.chance.randrange(self.above, size) for _ in range(6)}
        for length in sorted(lengths):
            with self.subTest(length=length):
                self.check_opens_at(*self.cut_copy(length), max(frame.index for frame in self.batches if frame.end <= length))

    def test_cut_below_the_durable_mark(self):
        first = self.frames[0].offset
        before = [frame.end for frame in self.frames if frame.end < self.below]
        for length in sorted({first, self.below - 1, before[-1], *self.chance.sample(range(first + 1, self.below), 4)}):
            with self.subTest(length=length):
                self.check_refused(*self.cut_copy(length), next(frame.index for frame in self.frames if frame.end > length))

    def test_flip_below_what_later_frames_call_durable(self):
        durable = max(frame.durable_through for frame in self.frames)
        self.assertGreater(durable, self.closed_at)  # by an fsync
        candidates = [frame for frame in self.batches if frame.index <= durable]
        for frame in [candidates[0], candidates[-1], *self.chance.sample(candidates, 5)]:
            for place in (self.chance.randrange(frame.offset, frame.offset + FRAME_BYTES),
                          self.chance.randrange(frame.offset + FRAME_BYTES, frame.end)):
                with self.subTest(index=frame.index, place=place):
                    self.check_refused(*self.flipped_copy(place), frame.index)

    def test_flip_above_everything_durable(self):
        durable = max(frame.durable_through for frame in self.frames)
        candidates = [frame for frame in self.batches if frame.index > durable]
        self.assertNotEqual(candidates, [])
        for frame in {candidates[0], candidates[-1]}:
            place = self.chance.randrange(frame.offset, frame.end)
            with self.subTest(index=frame.index, place=place):
                store, segment = self.flipped_copy(place)
                self.assertIn("torn tail", self.reprise("verify", store))
                self.check_opens_at(store, segment, frame.index - 1)

    def test_one_wrong_byte_is_put_right(self):
        """Wherever below the durable mark it is, the header too: refused, then repaired, and nothing is lost."""
        whole = max(frame.index for frame in self.batches)
        durable = [frame.end for frame in self.frames if frame.index <= max(frame.durable_through for frame in self.frames)]
        for place in (5, 13, 50, self.frames[0].offset - 3, *self.chance.sample(range(self.frames[0].offset, durable[-1]), 8)):
            with self.subTest(place=place):
                wrong = self.chance.randrange(1, 256)
                store, segment = self.damaged_copy(lambda data: data.__setitem__(place, data[place] ^ wrong))
                was, found = self.segment.read_bytes()[place], segment.read_bytes()[place]
                self.refused("run", "--store", store, "--", "true", status=125)
                self.assertIn("reprise repair", self.reprise("verify", store, status=1))
                said = self.reprise("repair", store)
                self.assertIn(f"put right: {segment}: at offset {place}: {was:02x} instead of {found:02x}\n", said)
                self.assertNotIn("lost", said)
                self.assertEqual(segment.read_bytes(), self.segment.read_bytes())
                self.reprise("verify", store)
                self.assertEqual(self.reprise("digest", "--content", store), self.content_at(whole))

    def test_a_damaged_header_and_a_missing_segment(self):
        for name, damage in (("header", lambda data: data.__setitem__(40, data[40] ^ 1)),
                             ("nothing", lambda data: data.clear()),
                             ("half a header", lambda data: data.__delitem__(slice(50, None)))):
            with self.subTest(name):
                store, segment = self.damaged_copy(damage)
                before = segment.read_bytes()
                self.assertIn(str(segment), self.refused("run", "--store", store, "--", "true", status=125))
                self.assertIn("damaged: ", self.reprise("verify", store, status=1))
                self.assertEqual(segment.read_bytes(), before)
        store, segment = self.damaged_copy(lambda data: None)
        segment.unlink()
        self.assertIn("log index", self.refused("run", "--store", store, "--", "true", status=125))
        self.assertIn("log index", self.refused("replay", store, "--onto", self.work / "nothing", status=3))
        self.assertIn("log index", self.refused("digest", store, status=3))
        self.assertFalse(segment.exists())

    def test_no_snapshot_to_go_on_from(self):
        """A journal that was trimmed is of no use without its snapshot: verify and repair say so."""
        store = self.work / "T"
        guest = self.guest(store)
        guest.sh("echo one > one")
        self.reprise("snapshot", "create", store, "--label", "only", "--trim")
        guest.sh("echo two > two")
        guest.kill()
        self.reprise("verify", store)
        for pack in (store / "packs").glob("*.pack"):
            data = bytearray(pack.read_bytes())
            data[len(data) // 2:] = bytes(len(data) - len(data) // 2)
            pack.write_bytes(data)
        self.refused("run", "--store", store, "--", "true", status=125)
        self.assertIn("expected a snapshot that holds batch", self.reprise("verify", store, status=1))
        said = self.reprise("repair", store, status=1)
        self.assertIn("cannot be opened: ", said)
        self.assertIn("expected a snapshot that holds batch", self.reprise("verify", store, status=1))
        self.assertIn("cannot be opened: ", self.reprise("repair", store, status=1))
        self.refused("run", "--store", store, "--", "true", status=125)

    def test_a_pipe_in_the_place_of_a_segment(self):
        store, segment = self.damaged_copy(lambda data: None)
        segment.unlink()
        os.mkfifo(segment)
        for command in (("run", "--store", store, "--", "true"), ("log", store)):
            done = execute([REPRISE, *command], timeout=30)
            self.assertIn("expected a regular file", done.err)
        self.assertIn("expected a regular file", self.reprise("verify", store, status=1))
        self.assertIn("kept aside", self.reprise("repair", store))
        self.assertEqual(self.reprise("digest", "--content", store), self.content_at(self.closed_at))
        self.reprise("verify", store)

    def test_a_damaged_copy_of_a_snapshots_record(self):
        store, _ = self.damaged_copy(lambda data: None)
        copies = sorted((store / "snapshots").glob("*.snapshot"))
        damaged, missing = copies[0], copies[-1]
        damaged.write_bytes(damaged.read_bytes()[:-3])
        self.assertIn(f"{damaged}: expected the record of a snapshot", self.reprise("verify", store, status=1))
        self.assertIn(f"kept aside: {damaged}.damaged\n", self.reprise("repair", store))
        self.reprise("verify", store)
        missing.unlink()
        self.assertIn(str(missing), self.reprise("verify", store, status=1))
        self.reprise("repair", store)
        self.reprise("verify", store)
        self.run_inside(store, "test -e before-2")


if __name__ == "__main__":
    unittest.main(verbosity=2)
