"""The disk below a live instance fails: the guest is told, the instance turns read-only and says why, nothing acknowledged is lost.

The disk is failing_disk.c, a library in LD_PRELOAD of the instance alone. FAILING_DISK_LIBRARY is its path.
"""
import errno
import os
import time
import unittest

from harness import TIMEOUT_S, EndToEnd

LIBRARY = os.environ["FAILING_DISK_LIBRARY"]

# In the guest: writes a file and syncs it, and says what was answered and by which call.
WRITE = """
import errno, os
def write(name, size=20_000):
    call = 'open'
    try:
        with open(name, 'wb', buffering=0) as file:
            call = 'write'
            file.write(name.encode() * (size // len(name)))
            call = 'fsync'
            os.fsync(file.fileno())
        return 'done'
    except OSError as error:
        return f'{call} {errno.errorcode[error.errno]}'
def reads(name, size=20_000):
    return open(name, 'rb').read() == name.encode() * (size // len(name))
"""


class Disk(EndToEnd):
    def setUp(self):
        super().setUp()
        self.store, self.fault = self.work / "S", self.work / "fault"
        # Programs inside are not concerned.
        wrapper = self.work / "python"
        wrapper.write_text(f'#!/bin/sh\nunset LD_PRELOAD\nexec {self.python} "$@"\n')
        wrapper.chmod(0o755)
        self.python = str(wrapper)

    def on_failing_disk(self, *options):
        guest = self.guest(self.store, *options, env={
            "LD_PRELOAD": LIBRARY, "FAILING_DISK": str(self.store), "FAILING_DISK_FAULT": str(self.fault)})
        guest.do(WRITE)
        return guest

    def write(self, guest, name):
        return guest.do(f"result = write({name!r})")

    def acknowledge(self, guest, count, first=0):
        for number in range(first, first + count):
            self.assertEqual(self.write(guest, f"safe-{number}"), "done")

    def break_disk(self, kind, number):
        new = self.work / "fault.new"
        new.write_text(f"{kind} {number}\n")
        new.rename(self.fault)

    def expect_all(self, count):
        """Opened on a disk that is sound, everything acknowledged is there, and more can be written."""
        self.fault.unlink(missing_ok=True)
        self.reprise("verify", self.store)
        guest = self.on_failing_disk()
        for number in range(count):
            self.assertTrue(guest.do(f"result = reads('safe-{number}')"), number)
        self.assertEqual(self.write(guest, "again"), "done")
        self.assertNotIn("failure", self.stat(self.store))
        self.assertEqual(guest.end(), 0, guest.errors())
        self.reprise("verify", self.store)

    def test_a_disk_that_fails_for_good(self):
        for name, kind, number in (("EIO on write", "write", errno.EIO), ("EIO on fsync", "sync", errno.EIO),
                                   ("no space on fsync", "sync", errno.ENOSPC), ("read-only remount", "change", errno.EROFS)):
            for heals in (False, True):
                with self.subTest(name, heals=heals):
                    self.lasting_fault(kind, number, heals)

    def lasting_fault(self, kind, number, heals):
        self.fault.unlink(missing_ok=True)
        self.succeed("rm", "-rf", self.store)
        guest = self.on_failing_disk()
        self.acknowledge(guest, 8)
        self.break_disk(kind, number)
        # The one that meets the fault is told at its fsync, unless the journal's thread has met it before.
        self.assertIn(self.write(guest, "lost"), ("fsync EROFS" if number == errno.EROFS else "fsync EIO", "write EROFS"))
        if heals:
            self.fault.unlink()  # a sync that failed is not tried again as if nothing had happened
        for name in ("later", "and later"):
            self.assertEqual(self.write(guest, name), "open EROFS")
        self.assertEqual(guest.do("os.stat('safe-0'); result = [reads(f'safe-{n}') for n in range(8)]"), [True] * 8)
        said = self.stat(self.store)["failure"]
        self.assertIn(os.strerror(number), said)
        self.assertIn(str(self.store), said)
        self.assertNotEqual(guest.end(), 0)  # and does not close as if all were well
        self.assertIn(os.strerror(number), guest.errors())
        self.expect_all(8)

    def test_a_disk_that_was_full_for_a_while(self):
        guest = self.on_failing_disk()
        self.acknowledge(guest, 8)
        self.break_disk("write", errno.ENOSPC)
        self.assertIn(self.write(guest, "waits"), ("fsync ENOSPC", "write ENOSPC", "open ENOSPC"))
        self.assertEqual(self.write(guest, "later"), "open ENOSPC")
        self.assertEqual(guest.do("result = [reads(f'safe-{n}') for n in range(8)]"), [True] * 8)
        self.assertIn(os.strerror(errno.ENOSPC), self.stat(self.store)["failure"])
        self.fault.unlink()
        deadline = time.monotonic() + TIMEOUT_S
        while "failure" in self.stat(self.store):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        self.acknowledge(guest, 8, first=8)
        self.assertEqual(guest.end(), 0, guest.errors())
        self.expect_all(16)

    def test_a_full_disk_and_a_kill(self):
        """What waits for space is lost with the process; what was acknowledged is not."""
        guest = self.on_failing_disk()
        self.acknowledge(guest, 8)
        self.break_disk("write", errno.ENOSPC)
        self.assertNotEqual(self.write(guest, "waits"), "done")
        guest.kill()
        self.expect_all(8)

    def test_a_call_that_waits_for_the_disk_is_told(self):
        """With durability `always` it is not fsync that finds out."""
        guest = self.on_failing_disk("--durability", "always")
        self.acknowledge(guest, 3)
        self.break_disk("sync", errno.EIO)
        self.assertEqual(self.write(guest, "lost"), "open EIO")
        self.assertEqual(self.write(guest, "later"), "open EROFS")
        guest.end()
        self.expect_all(3)

    def test_opening_on_a_disk_that_fails(self):
        """Refused with the reason, and nothing is harmed."""
        guest = self.on_failing_disk()
        self.acknowledge(guest, 4)
        guest.kill()
        for kind, number in (("write", errno.EIO), ("sync", errno.EIO), ("change", errno.EROFS), ("write", errno.ENOSPC)):
            with self.subTest(kind, number=number):
                self.break_disk(kind, number)
                said = self.refused("run", "--store", self.store, "--", "true", status=125, env={
                    "LD_PRELOAD": LIBRARY, "FAILING_DISK": str(self.store), "FAILING_DISK_FAULT": str(self.fault)})
                self.assertIn(os.strerror(number), said)
        self.expect_all(4)


if __name__ == "__main__":
    unittest.main(verbosity=2)
