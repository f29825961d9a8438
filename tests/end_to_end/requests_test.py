"""What the kernel has cached is served without a single request to the instance, in a writer and in a follower."""
import time
import unittest

from harness import EndToEnd

# os.open, because open() of Python asks whether a file is a terminal, and every ioctl is passed on by the kernel.
READ_AGAIN = """
import os
def read(path, size, offset):
    descriptor = os.open(path, os.O_RDONLY)
    data = os.pread(descriptor, size, offset)
    os.close(descriptor)
    return len(data)
for _ in range(500):
    result = read('dir/file', 200_000, 0)
    read('dir/other', 10, 70_000)
    os.stat('dir/file'); os.stat('dir'); os.path.exists('dir/absent'); os.readlink('link'); os.listdir('dir')
"""


class Requests(EndToEnd):
    def requests(self, store):
        """How many requests of the kernel the instance has answered."""
        return self.ask(store, ask="stat")["fuse_requests"]

    def let_settle(self, guest):
        """What has just changed is asked for a few times before the kernel may keep it (docs/fuse.md)."""
        for _ in range(3):
            self.assertEqual(guest.do(READ_AGAIN), 100_000)
            time.sleep(0.1)
        self.assertEqual(guest.do(READ_AGAIN), 100_000)

    def check_silent(self, guest):
        self.let_settle(guest)
        # The kernel may want the memory back at any time, and then asks once more: so it is silent in one of five.
        asked = []
        for _ in range(5):
            before = self.requests(guest.store)
            self.assertGreater(before, 0)
            self.assertEqual(guest.do(READ_AGAIN), 100_000)
            asked.append(self.requests(guest.store) - before)
            if asked[-1] == 0:
                break
        self.assertEqual(asked[-1], 0, asked)
        # And the count does count.
        guest.do(f"os.path.exists('dir/not asked for yet {before}')")
        self.assertGreater(self.requests(guest.store), before)

    def test_reading_again_asks_nothing(self):
        a = self.guest(self.work / "A", "--listen", f"unix:{self.work}/s")
        a.do("import os; os.mkdir('dir'); os.symlink('dir', 'link')\n"
             "for name in ('file', 'other'): open('dir/' + name, 'wb').write(b'x' * 100_000)")
        b = self.guest(self.work / "B", "--follow", f"unix:{self.work}/s")
        self.reprise("mark", self.work / "A", "written")
        self.reprise("wait-for", self.work / "B", "written")
        self.check_silent(a)
        self.check_silent(b)

        # A change elsewhere leaves what is cached alone: no file is read again, and soon nothing is asked.
        a.do("open('elsewhere', 'w').write('x')")
        self.reprise("mark", self.work / "A", "elsewhere")
        self.reprise("wait-for", self.work / "B", "elsewhere")
        self.check_silent(b)


if __name__ == "__main__":
    unittest.main(verbosity=2)
