"""inotify in a mount: changes made through it are told as on a plain directory; those that come from a leader are not."""
import sys
import unittest

from harness import EndToEnd

WATCHER = r"""
import ctypes, os, select, struct, time
NAMES = ['access', 'modify', 'attrib', 'close_write', 'close_nowrite', 'open', 'moved_from', 'moved_to', 'create', 'delete',
         'delete_self', 'move_self']
NAMES = {**{1 << bit: name for bit, name in enumerate(NAMES)}, 0x2000: 'unmount', 0x4000: 'overflow', 0x8000: 'ignored'}
libc = ctypes.CDLL(None, use_errno=True)

class Watcher:
    def __init__(self, *paths):
        self.handle, self.paths = libc.inotify_init1(os.O_NONBLOCK), {}
        for path in paths: self.add(path)

    def add(self, path):
        watch = libc.inotify_add_watch(self.handle, os.fsencode(path), 0xfff)
        if watch < 0: raise OSError(ctypes.get_errno(), 'inotify_add_watch', path)
        self.paths[watch] = path

    def events(self):
        'All there are by now: [what is watched, what happened, the name there]'
        found = []
        while select.select([self.handle], [], [], 0)[0]:
            data = os.read(self.handle, 1 << 16)
            while data:
                watch, mask, cookie, length = struct.unpack_from('iIII', data)
                name = data[16:16 + length].rstrip(b'\0').decode()
                kinds = [NAMES[bit] for bit in NAMES if mask & bit] + ['directory'] * bool(mask & 0x40000000)
                found.append([self.paths[watch], ' '.join(kinds), name])
                data = data[16 + length:]
        return found
"""

CHANGES = r"""
echo one > file; echo two >> file; cat file >/dev/null; : > file
printf 12345 | dd of=file conv=notrunc,fsync bs=1 seek=2 2>/dev/null; truncate -s 100 file; fallocate -p -l 50 file
chmod 600 file; touch -d @1000000000 file; ln file hard; ln -s file symlink
mv file inside/moved; mv inside/moved outside/; mv outside/moved back; mv back hard2; mv -T hard2 replaced
cp replaced copy; sed -i s/1/2/ copy; rm hard
mkdir inside/deep; rmdir inside/deep; chmod 700 inside; mv inside inside2; rm -r inside2
exec 3<>watched; echo through the descriptor >&3; rm watched; echo after its name went >&3; exec 3>&-
"""


class Watching(EndToEnd):
    def test_changes_through_the_mount_are_told_as_on_a_plain_directory(self):
        prepare = "mkdir inside outside; touch replaced watched"
        watch = WATCHER + f"""
import mmap, re, subprocess
watcher = Watcher('.', 'inside', 'watched')
subprocess.run(['sh', '-euc', {CHANGES!r}], check=True)
with open('replaced', 'r+b') as file, mmap.mmap(file.fileno(), 0) as mapping: mapping[5] = 7; mapping.flush()
result = [[path, kinds, re.sub('^sed.{{6}}$', 'sed', name)] for path, kinds, name in watcher.events()]  # sed draws a name
"""
        plain = self.work / "plain"
        plain.mkdir()
        self.succeed("sh", "-euc", prepare, cwd=plain)
        expected = eval(self.succeed(sys.executable, "-c", watch + "print(result)", cwd=plain))
        self.assertGreater(len(expected), 80)
        for kind in ("create", "modify", "attrib", "close_write", "moved_from", "moved_to", "delete", "delete_self", "move_self", "ignored"):
            self.assertTrue(any(kind in kinds for _, kinds, _ in expected), kind)

        guest = self.guest(self.work / "S")
        guest.sh(prepare)
        self.assertEqual(guest.do(watch), expected)

    def test_what_comes_from_a_leader_is_seen_but_not_told(self):
        leader = self.guest(self.work / "a", "--listen", f"unix:{self.work}/s")
        leader.sh("mkdir dir dir/below; for i in 1 2 3 4 5; do echo $i > dir/$i; done")
        follower = self.guest(self.work / "b", "--follow", f"unix:{self.work}/s")
        self.reprise("flush", self.work / "a")
        follower.do(WATCHER + "watcher = Watcher('dir', 'dir/below', *(f'dir/{i}' for i in range(1, 6)))\n"
                    "texts = lambda: {n: open('dir/' + n).read() for n in sorted(os.listdir('dir')) if n.isdigit()}")
        self.assertIn(["dir/2", "open", ""], follower.do("texts(); result = watcher.events()"))
        leader.sh("cd dir; echo more >> 1; echo new > 6; rm 2; mv 3 7; mv 6 4; chmod 600 5; rmdir below; mkdir other")
        self.reprise("flush", self.work / "a")
        self.assertEqual(follower.do("result = watcher.events()"), [])
        # Who looks sees all of it; a watch is on what it was set on, whatever that is called now.
        self.assertEqual(follower.do("result = texts()"), {"1": "1\nmore\n", "4": "new\n", "5": "5\n", "7": "3\n"})
        found = follower.do("result = watcher.events()")
        self.assertEqual({kind for _, kinds, _ in found for kind in kinds.split()}, {"open", "access", "close_nowrite", "directory"})
        self.assertEqual({path for path, kinds, _ in found if kinds == "open"}, {"dir", "dir/1", "dir/3", "dir/5"})

    def test_what_comes_by_a_join_is_seen_but_not_told(self):
        store = self.work / "S"
        guest = self.guest(store)
        guest.sh("mkdir dir; echo one > dir/1")
        guest.do(WATCHER + "watcher = Watcher('dir', 'dir/1'); open('dir/1').read(); watcher.events()")
        self.reprise("fork", store, "try")
        self.run_inside(f"{store}:try", "echo more >> dir/1; echo two > dir/2")
        self.reprise("join", store, "try")
        self.assertEqual(guest.do("result = watcher.events()"), [])
        self.assertEqual(guest.sh("cat dir/1 dir/2"), "one\nmore\ntwo\n")
        self.assertEqual(guest.do("watcher.events(); os.truncate('dir/2', 0); result = watcher.events()"), [["dir", "modify", "2"]])


if __name__ == "__main__":
    unittest.main(verbosity=2)
