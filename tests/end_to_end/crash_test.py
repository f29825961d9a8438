"""The process of an instance is killed while programs write in it: nothing that a returned fsync promised is lost.

    KILLS=100 SEED=7 REPRISE=… crash_test.py [-k NAME]      so many kills in each loop, and says what they met; SEED: the same times
"""
import collections
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
import unittest

from harness import HERE, REPRISE, TIMEOUT_S, EndToEnd, execute

EVERYTHING = ("python", "php", "git", "files")
KINDS = {"wal", "rollback", "php-wal", "php-rollback", "commit", "record", "replaced", "mapped", "through"}
ROUNDS_OF_A_STORE, ROUNDS_OF_A_PAIR = 25, 6  # then a new one: else what has been written takes ever longer to check
LONG = "KILLS" in os.environ


def kills(usual):
    """How often a test kills."""
    return int(os.environ.get("KILLS", usual))


class Counts(collections.Counter):
    """What a loop of kills has met; a long one says it in the end."""

    def tell(self, what):
        if LONG:
            print(f"{what}: {', '.join(f'{number} {name}' for name, number in self.items())}", file=sys.stderr, flush=True)


class Crash(EndToEnd):
    def setUp(self):
        super().setUp()
        seed = int(os.environ.get("SEED", time.time_ns() % 1_000_000))
        self.chance = random.Random(f"{seed} {self.id()}")
        self.seed = f"SEED={seed}"
        self.store, self.log = self.work / "S", self.work / "promised"
        self.counts, self.marks, self.processes = Counts(), 0, []
        self.addCleanup(self.end_all)

    # --- processes

    def start(self, store, *options, command):
        with open(self.work / "instance.err", "ab") as errors:
            process = subprocess.Popen([REPRISE, "run", "--store", str(store), *map(str, options), "--", *map(str, command)],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
        self.processes.append(process)
        return process

    def end_all(self):
        for process in self.processes:
            process.stdout.close()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(TIMEOUT_S)

    def start_writer(self, workloads, *options, store=None):
        return self.start(store or self.store, *options,
                          command=[sys.executable, HERE / "crash_writer.py", self.log, "write", *workloads])

    def said(self):
        return (self.work / "instance.err").read_text(errors="replace")[-4000:]

    def line(self, process, expected):
        self.assertEqual(process.stdout.readline(), expected, self.said())

    def kill(self, process):
        """The process of the instance alone. Its guests end because their filesystem is gone."""
        self.assertIsNone(process.poll(), self.said())
        process.kill()
        process.wait(TIMEOUT_S)
        readable = select.select([process.stdout], [], [], TIMEOUT_S)[0]  # the guests' too: at its end they are gone
        while readable and process.stdout.read1():
            readable = select.select([process.stdout], [], [], TIMEOUT_S)[0]
        process.stdout.close()
        self.assertTrue(readable, "guests live on after their instance")

    def until(self, how_many, deadline_s=5):
        """Waits until so many promises more have been made: what comes next cuts into something."""
        size, deadline = self.log.stat().st_size, time.monotonic() + deadline_s
        while self.log.stat().st_size < size + how_many * 12 and time.monotonic() < deadline:
            time.sleep(0.0005)

    def some_time(self):
        if self.chance.random() < 0.5:
            time.sleep(self.chance.uniform(0, 0.3))
        else:
            self.until(self.chance.randrange(1, 30))

    # --- what must hold

    def verify(self, store):
        """Clean, but for a torn tail perhaps."""
        self.counts["torn tails"] += "torn tail" in self.reprise("verify", store)

    def checker(self, workloads):
        return [sys.executable, HERE / "crash_writer.py", self.log, "check", *workloads]

    def check(self, workloads, status=0):
        self.reprise("run", "--store", self.store, "--", *self.checker(workloads), status=status)

    def check_all(self, workloads):
        """All that was promised is there, and the whole of it can be replayed from the first batch."""
        self.check(workloads)
        self.reprise("verify", self.store)
        self.reprise("replay", self.store, "--onto", self.work / "out")
        self.assertEqual(self.reprise("digest", "--content", self.work / "out"), self.reprise("digest", "--content", self.store))
        shutil.rmtree(self.work / "out")

    def in_step(self, leader, follower):
        """Both come to the same state, at a mark that is set now."""
        for _ in range(10):
            self.marks += 1
            mark = f"m{self.marks}"
            self.reprise("mark", leader, mark)
            self.reprise("wait-for", follower, mark, "--timeout", 30)
            found = execute([REPRISE, "digest", f"{follower}@{mark}"])
            if found.status == 0:
                break
            # It was overwritten meanwhile with what is later than the mark.
            self.assertIn("before the oldest state it has", found.err, found)
        self.assertEqual(found.out, self.reprise("digest", f"{leader}@{mark}"))

    # --- kills

    def round(self, workloads):
        """A writer looks whether everything promised is there, and goes on until the kill; one of five is killed meanwhile."""
        process = self.start_writer(workloads)
        if self.chance.random() < 0.2:
            time.sleep(self.chance.uniform(0, 0.2))
            self.counts["while opening or checking"] += 1
        else:
            self.line(process, b"checked\n")
            self.some_time()
            self.counts["while writing"] += 1
        self.kill(process)
        if (self.store / "branches/main/journal").exists():  # else it was killed while it made the store
            self.verify(self.store)

    def kill_often(self, workloads, often):
        lines = 0
        with self.subTest(self.seed):
            for first in range(0, often, ROUNDS_OF_A_STORE):
                shutil.rmtree(self.store, ignore_errors=True)
                self.log.write_bytes(b"")
                for _ in range(first, min(often, first + ROUNDS_OF_A_STORE)):
                    self.round(workloads)
                self.check_all(workloads)
                lines += len(self.log.read_text().splitlines())
            self.counts["promises kept"] = lines
            self.counts.tell(f"kills during {', '.join(workloads)}")
            if often >= 10:
                self.assertGreater(lines, self.counts["while writing"])  # else too little was under way to be lost

    def test_kills_during_transactions_of_python(self):
        self.kill_often(["python"], kills(1))

    def test_kills_during_transactions_of_php(self):
        self.kill_often(["php"], kills(1))

    def test_kills_during_commits_of_git(self):
        self.kill_often(["git"], kills(1))

    def test_kills_during_writes_to_files(self):
        self.kill_often(["files"], kills(1))

    def test_kills_during_everything(self):
        self.kill_often(EVERYTHING, kills(3))

    def kill_in_turn(self, follower_store, often):
        endpoint = f"unix:{self.work}/sock"
        start_leader = lambda: self.start_writer(EVERYTHING, "--listen", endpoint)
        start_follower = lambda: self.start(follower_store, "--follow", endpoint, command=["sh", "-c", "echo here; exec sleep 1000"])
        leader = start_leader()
        self.line(leader, b"checked\n")
        follower = start_follower()
        self.line(follower, b"here\n")
        for number in range(often):
            self.some_time()
            whom = ("leader", "follower", "both")[number % 3]
            if whom != "follower":
                self.kill(leader)
                self.verify(self.store)
            if whom != "leader":
                self.kill(follower)
                self.verify(follower_store)
            if whom != "follower":
                leader = start_leader()
            if whom != "leader":
                follower = start_follower()
                self.line(follower, b"here\n")
            if whom != "follower":
                self.line(leader, b"checked\n")
            self.counts[f"of {whom}"] += 1
            self.in_step(self.store, follower_store)
        # And when nothing is written any more.
        self.kill(leader)
        leader = self.start(self.store, "--listen", endpoint,
                            command=["sh", "-euc", '"$@"; exec sleep 1000', "sh", *self.checker(EVERYTHING)])
        self.line(leader, b"checked\n")
        self.in_step(self.store, follower_store)
        self.kill(leader)
        self.kill(follower)
        self.verify(follower_store)
        self.assert_in_step(self.store, follower_store)
        self.check_all(EVERYTHING)

    def test_kills_of_leader_and_follower(self):
        """Whoever was killed, in the end both have the same files, and the leader all that was promised."""
        follower_store = self.work / "F"
        with self.subTest(self.seed):
            for first in range(0, kills(3), ROUNDS_OF_A_PAIR):
                for store in (self.store, follower_store):
                    shutil.rmtree(store, ignore_errors=True)
                self.log.write_bytes(b"")
                self.kill_in_turn(follower_store, min(kills(3) - first, ROUNDS_OF_A_PAIR))
                self.counts["promises kept"] += len(self.log.read_text().splitlines())
            self.counts.tell("kills")

    def test_a_kill_while_the_store_is_made_leaves_one_that_can_be_used(self):
        for number in range(10):
            process = self.start(self.store, command=["sleep", "60"])
            time.sleep(number / 500)
            self.kill(process)
            self.run_inside(self.store, "echo here > file && cat file")
            self.reprise("verify", self.store)
            shutil.rmtree(self.store)

    def test_of_several_that_make_one_store_one_uses_it_and_the_others_are_told(self):
        for number in range(5):
            store = self.work / f"R{number}"
            racers = [subprocess.Popen([REPRISE, "run", "--store", store, "--", "sh", "-c", "echo x > file; cat file; sleep 0.3"],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
            ended = [racer.communicate(timeout=TIMEOUT_S) + (racer.returncode,) for racer in racers]
            self.assertTrue([end for end in ended if end[2] == 0], ended)
            for out, err, status in ended:
                if status == 0:
                    self.assertEqual((out, err), ("x\n", ""))
                else:
                    self.assertEqual((out, status), ("", 125))
                    self.assertRegex(err, r"^reprise: .*/branches/main/lock: expected no live instance, found one: process \d+ .*\n$")
            self.reprise("verify", store)
            self.assertEqual(self.reprise("cat", f"{store}:/file"), "x\n")

    def test_the_check_finds_what_is_missing(self):
        """The tests above can fail: a promise that was not kept is noticed."""
        self.log.touch()
        while not KINDS <= {line.split()[0] for line in self.log.read_text().splitlines()}:
            process = self.start_writer(EVERYTHING)
            self.line(process, b"checked\n")
            self.until(60)
            self.kill(process)
        honest = self.log.read_text()
        self.assertEqual(KINDS, {line.split()[0] for line in honest.splitlines()})
        for kind in sorted(KINDS):
            with self.subTest(kind):
                self.log.write_text(f"{honest}{kind} {'1' * 40 if kind == 'commit' else 1000000}\n")
                self.check(EVERYTHING, status=1)

    def test_a_kill_of_the_whole_session_leaves_a_store_that_opens(self):
        self.log.touch()
        process = self.start_writer(EVERYTHING)
        self.line(process, b"checked\n")
        self.until(30)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(TIMEOUT_S)
        process.stdout.close()
        self.check(EVERYTHING)


if __name__ == "__main__":
    unittest.main(verbosity=2)
