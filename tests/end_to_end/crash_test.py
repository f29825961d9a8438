"""The process of an instance is killed while programs write in it: nothing that a returned fsync promised is lost."""
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

from harness import HERE, REPRISE, TIMEOUT_S, EndToEnd

ROUNDS = 20


class Crash(EndToEnd):
    def start_writer(self, store, log):
        errors = open(self.work / "writer.err", "wb")
        with errors:
            return subprocess.Popen([REPRISE, "run", "--store", str(store), "--", sys.executable, str(HERE / "crash_writer.py"), str(log)],
                                    stdout=subprocess.PIPE, stderr=errors, start_new_session=True)

    def kill(self, process):
        process.kill()
        process.wait(TIMEOUT_S)
        process.stdout.close()

    def round(self, store, log, chance, even_while_opening):
        """Until the kill; whether it came after the writer had found everything that was promised."""
        process = self.start_writer(store, log)
        try:
            if even_while_opening:
                time.sleep(chance.uniform(0, 0.2))
                return False
            line = process.stdout.readline()
            self.assertEqual(line, b"checked\n", (self.work / "writer.err").read_text(errors="replace"))
            time.sleep(chance.uniform(0, 0.5))
            return True
        finally:
            self.kill(process)

    def test_kill_during_writes(self):
        seed = int(os.environ.get("SEED", time.time_ns() % 1_000_000))
        chance = random.Random(seed)
        store, log = self.work / "S", self.work / "promised"
        log.touch()
        grown = 0
        with self.subTest(f"SEED={seed}"):
            for number in range(ROUNDS):
                before = log.stat().st_size
                checked = self.round(store, log, chance, even_while_opening=number % 5 == 4)
                grown += log.stat().st_size > before
                if checked or (store / "reprise.store").exists():
                    self.reprise("verify", store)
            last = self.reprise("run", "--store", store, "--", sys.executable, HERE / "crash_writer.py", log, "check")
            self.assertEqual(last, "checked\n")
            self.reprise("verify", store)
            kinds = {line.split()[0] for line in log.read_text().splitlines()}
            self.assertEqual(kinds, {"record", "wal", "rollback", "commit"})
            self.assertGreater(grown, ROUNDS // 2)  # else too little was under way to be lost
            # And the whole of it can be replayed from the first batch.
            self.reprise("replay", store, "--onto", self.work / "out")
            self.assertEqual(self.reprise("digest", "--content", self.work / "out"), self.reprise("digest", "--content", store))

    def test_a_kill_while_the_store_is_made_leaves_one_that_can_be_used(self):
        for number in range(20):
            store = self.work / "S"
            process = subprocess.Popen([REPRISE, "run", "--store", str(store), "--", "sleep", "60"], stderr=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, start_new_session=True)
            time.sleep(number / 1000)
            self.kill(process)
            self.run_inside(store, "echo here > file && cat file")
            self.reprise("verify", store)
            shutil.rmtree(store)

    def test_of_two_that_make_one_store_both_can_use_it(self):
        for number in range(10):
            store = self.work / f"R{number}"
            racers = [subprocess.Popen([REPRISE, "run", "--store", f"{store}{branch}", "--", "sh", "-c", "echo x > file; cat file; sleep 0.3"],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for branch in ("", ":other", "")]
            ended = [racer.communicate(timeout=TIMEOUT_S) + (racer.returncode,) for racer in racers]
            # Two want the same branch: one of them has it, and the other is told by whom.
            one_of_two = [end for end in (ended[0], ended[2]) if end[2] != 125]
            self.assertTrue(one_of_two, ended)
            for out, err, status in one_of_two + [ended[1]]:
                self.assertEqual((out, err, status), ("x\n", "", 0))
            for out, err, status in (ended[0], ended[2]):
                if status == 125:
                    self.assertRegex(err, r"^reprise: .*/branches/main/lock: expected no live instance, found one: process \d+ .*\n$")
            self.reprise("verify", store)
            self.assertEqual(self.reprise("cat", f"{store}:other:/file"), "x\n")

    def test_the_check_finds_what_is_missing(self):
        """The test above can fail: a promise that was not kept is noticed."""
        store, log = self.work / "S", self.work / "promised"
        log.touch()
        chance = random.Random(1)
        while not {"record", "wal", "rollback", "commit"} <= {line.split()[0] for line in log.read_text().splitlines()}:
            self.round(store, log, chance, even_while_opening=False)
        honest = log.read_text()
        for promise in ("record 1000000", "wal 1000000", "rollback 1000000", "commit " + "1" * 40):
            log.write_text(honest + promise + "\n")
            with self.subTest(promise):
                self.reprise("run", "--store", store, "--", sys.executable, HERE / "crash_writer.py", log, "check", status=1)

    def test_a_kill_of_the_whole_session_leaves_a_store_that_opens(self):
        store, log = self.work / "S", self.work / "promised"
        log.touch()
        process = self.start_writer(store, log)
        self.assertEqual(process.stdout.readline(), b"checked\n")
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(TIMEOUT_S)
        process.stdout.close()
        self.reprise("run", "--store", store, "--", sys.executable, HERE / "crash_writer.py", log, "check")


if __name__ == "__main__":
    unittest.main(verbosity=2)
