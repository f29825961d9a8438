"""More programs: a build with make, a Python venv, editors' ways to save, and a web server's workers on one database."""
import shutil
import sys
import unittest

from comparison import Comparison

BUILD = r"""
mkdir include src
for i in $(seq 1 60); do
  echo "int part_$i(int value);" > include/part_$i.h
  next=$((i % 60 + 1))
  cat > src/part_$i.c <<SOURCE
#include "common.h"
#include "part_$i.h"
#include "part_$next.h"
#include <stdio.h>
int part_$i(int value) { return value <= 0 ? BASE : BASE + value % $((i + 1)) + (value > $i ? part_$next(value - $i) : 0); }
SOURCE
done
sed -i '/common.h/d; s/BASE/1/g' src/part_[1-4]?.c
echo '#define BASE 7' > include/common.h
printf '#include "part_1.h"\n#include <stdio.h>\nint main(void) { printf("%%d\\n", part_1(1000)); return 0; }\n' > src/main.c
cat > Makefile <<'RULES'
objects := $(patsubst src/%.c,objects/%.o,$(wildcard src/*.c))
program: objects/main.o objects/all.a
	$(CC) -o $@ $^
objects/all.a: $(filter-out objects/main.o,$(objects))
	rm -f $@; $(AR) rcs $@ $^
objects/%.o: src/%.c | objects
	$(CC) -O1 -Iinclude -MMD -c -o $@ $<
objects:
	mkdir $@
-include $(objects:.o=.d)
RULES
make -j2 2>&1 | sort; ./program
make -j2 2>&1
sed -i s/7/8/ include/common.h
make -j2 2>&1 | sort; ./program
touch include/part_30.h
make -j2 2>&1 | sort; ./program
touch program; make -q program && echo nothing to do
printf '#include "gone.h"\n' >> src/part_9.c
make -j2 >failure 2>&1 && echo built; grep -c 'gone.h: No such file' failure; ls objects/part_9.o 2>&1 || true
rm failure
"""

VENV = r"""
unset PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
"$PYTHON" -m venv env
mkdir -p wheel/greeting wheel/greeting-1.0.dist-info
cd wheel
echo 'from greeting.words import WORDS
def main(): print(*WORDS)' > greeting/__init__.py
echo 'WORDS = ["hello", "from", "here"]' > greeting/words.py
printf 'Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n' > greeting-1.0.dist-info/WHEEL
printf 'Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n' > greeting-1.0.dist-info/METADATA
printf '[console_scripts]\ngreet = greeting:main\n' > greeting-1.0.dist-info/entry_points.txt
find greeting* -type f | sort | sed 's/$/,,/' > ../record
mv ../record greeting-1.0.dist-info/RECORD
find . -exec touch -d @1700000000 {} +
find greeting* -type f | sort | zip -q -X ../greeting-1.0-py3-none-any.whl -@
cd ..
env/bin/pip install -q --no-index ./greeting-1.0-py3-none-any.whl 2>&1
env/bin/greet
env/bin/pip list --format=freeze | grep greeting; env/bin/pip check
(. env/bin/activate; command -v python; python -c 'import sys, greeting; print(sys.prefix, greeting.__file__)')

# What is compiled is kept, used, and made anew when the source changes.
echo 'value = 1' > module.py
env/bin/python -c 'import module; print(module.value)'
ls __pycache__ | wc -l
env/bin/python -v -c 'import module' 2>&1 | grep -c 'code object from .*__pycache__/module'
echo 'value = "changed"' > module.py
env/bin/python -c 'import module; print(module.value)'
env/bin/python -m compileall -q --invalidation-mode checked-hash -f module.py
env/bin/python -c 'import module; print(module.value)'
env/bin/pip uninstall -q -y greeting 2>&1
ls env/lib/python*/site-packages | grep -c greeting || true
env/bin/python -m venv --clear --without-pip env 2>&1
find env -type f | wc -l
"""

# Each file has a second name, odd permissions and an owner; what is left of these is what matters, and what lies beside it.
EDITORS = r"""
export TERM=dumb
look() {
  echo "== $1"; ls -A | sort
  for name in text other link; do [ -e $name ] && stat -c '%n %F %a %h %u %g' $name && cat $name; done
  [ text -ef other ] && echo one file
  [ text -ef before ] && echo the inode of before
  cd ..
}
fresh() {
  mkdir $1; cd $1
  echo 'first line' > text; echo 'second line' >> text
  chmod 2654 text; ln text other; ln text before; ln -s text link
  if [ "$(id -u)" = 0 ]; then chown 1234:2345 text; chmod 2654 text; fi
}
edit() { "$VIM" -u NONE -i NONE -N -es -c 'set backupskip=' "$@" 2>&1; }  # it makes no backups in /tmp otherwise

for copy in yes no auto auto,breakhardlink auto,breaksymlink; do
  for backup in nobackup,writebackup backup nobackup,nowritebackup; do
    fresh vim-$copy-$backup
    edit -c "set $(echo $backup | tr , ' ') backupcopy=$copy" -c '1s/first/FIRST/' -c 'wq' text
    edit -c "set $(echo $backup | tr , ' ') backupcopy=$copy" -c '2s/second/SECOND/' -c 'wq' link
    look "vim $copy $backup"
  done
done

fresh vim-swap
# Vim dies with a change that is in its swap file only; what it says names the process, so it is not printed.
edit -c '1s/first/SWAPPED/' -c 'preserve' -c 'silent !kill -9 $PPID' text >/dev/null 2>&1 || echo killed
ls -A; cat text
edit -r -c 'wq' text >/dev/null; rm .text.swp
look recovered
fresh vim-append
edit -c 'set fsync' -c '1write! >> other' -c '2,2write new' -c 'saveas! again' -c 'q' text
look 'write, append, save as'

fresh emacs
mv text text~; cp -p text~ text; echo 'third line' >> text
ln -s "someone@host.1:1" .#text; readlink .#text; rm .#text
look 'backup by renaming, lock by a symlink'

cat > save.py <<'SCRIPT'
import os, sys, tempfile
def replaced(name, text):
    'to another file, to the disk, and in place of the first'
    handle, path = tempfile.mkstemp(dir='.', prefix='.save-')
    os.fchmod(handle, os.stat(name).st_mode & 0o777); os.write(handle, text); os.fsync(handle); os.close(handle)
    os.rename(path, name)
    folder = os.open('.', os.O_RDONLY); os.fsync(folder); os.close(folder)
def in_place(name, text):
    'into the file, whose end goes'
    with open(name, 'r+b') as file: file.write(text); file.flush(); file.truncate(); os.fsync(file.fileno())
def truncated(name, text):
    'open with O_TRUNC'
    with open(name, 'wb') as file: file.write(text)
def linked(name, text):
    'the old one gets the name of a backup by a link'
    os.link(name, name + '.bak'); os.unlink(name)
    with open(name, 'xb') as file: file.write(text)
reader = open('text', 'rb')
globals()[sys.argv[1]]('text', b'short\n')
print(reader.read(), os.fstat(reader.fileno()).st_nlink)
SCRIPT
for way in replaced in_place truncated linked; do fresh $way; "$PYTHON" ../save.py $way; look $way; done
fresh shell; sed -i.orig s/first/third/ text; sed -i --follow-symlinks s/second/fourth/ link; sort -o text text; look 'sed, sort'
find . -type f -exec chmod g-s {} +  # a replay onto a directory leaves that bit out unless it sets owners, too
"""

# A shop under load: a web server of four processes and three workers write into one database, and nothing is lost or done twice.
WORKERS = r"""
cat > common.php <<'SCRIPT'
<?php
function database(): PDO {
    $db = new PDO('sqlite:' . __DIR__ . '/shop.db', null, null, [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
    $db->exec('PRAGMA busy_timeout = 30000; PRAGMA synchronous = NORMAL');
    return $db;
}
function order(PDO $db, string $who, int $number): void {
    $db->exec('BEGIN IMMEDIATE');
    $db->prepare('INSERT INTO orders (who, number, note) VALUES (?, ?, ?)')->execute([$who, $number, str_repeat("$who/$number ", 60)]);
    $db->exec('UPDATE stock SET sold = sold + 1 WHERE item = ' . $number % 10);
    $db->exec('COMMIT');
    file_put_contents(__DIR__ . '/log', "$who $number\n", FILE_APPEND | LOCK_EX);
}
SCRIPT
cat > index.php <<'SCRIPT'
<?php
require 'common.php';
$db = database();
if ($_SERVER['REQUEST_METHOD'] === 'POST') order($db, 'web', (int) $_GET['number']);
[$count, $sold] = $db->query('SELECT (SELECT count(*) FROM orders), (SELECT total(sold) FROM stock)')->fetch(PDO::FETCH_NUM);
echo $count == $sold ? 'ok' : "torn: $count orders and $sold sold", ' ', getmypid();
SCRIPT
cat > worker.php <<'SCRIPT'
<?php
require 'common.php';
$db = database();
for ($i = 0; $i < 150; $i++) order($db, "worker $argv[1]", $i);
SCRIPT
cat > load.py <<'SCRIPT'
import concurrent.futures, os, signal, socket, subprocess, sys, time, urllib.request
with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0)); address = '127.0.0.1:%d' % probe.getsockname()[1]
server = subprocess.Popen(['php', '-S', address], env={**os.environ, 'PHP_CLI_SERVER_WORKERS': '4'}, start_new_session=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
def ask(number):
    for attempt in range(400):
        try:
            data = b'' if number is not None else None
            return urllib.request.urlopen(f'http://{address}/?number={number}', data=data, timeout=60).read().decode()
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError as error:  # it has not begun to listen
            if number is not None: return str(error)
            time.sleep(0.05)
print(ask(None).split()[0])
workers = [subprocess.Popen(['php', 'worker.php', str(n)]) for n in range(3)]
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    answers = list(pool.map(ask, range(400)))
print({answer.split()[0] if answer.startswith('ok ') else answer for answer in answers}, len({answer for answer in answers}) > 1)
print([worker.wait() for worker in workers])
os.killpg(server.pid, signal.SIGINT); server.wait()
SCRIPT
sqlite3 shop.db 'PRAGMA journal_mode = WAL; CREATE TABLE orders (who, number, note, UNIQUE (who, number));
  CREATE TABLE stock (item INTEGER PRIMARY KEY, sold); INSERT INTO stock SELECT value, 0 FROM generate_series(0, 9)'
"$PYTHON" load.py
sqlite3 shop.db 'PRAGMA integrity_check; SELECT who, count(*), sum(number), count(DISTINCT note) FROM orders GROUP BY who;
  SELECT * FROM stock; PRAGMA wal_checkpoint(TRUNCATE)'
sort log | sha256sum; ls
"""


class Programs(Comparison):
    def setUp(self):
        super().setUp()
        self.environment["PYTHON"] = sys.executable
        self.environment["VIM"] = shutil.which("vim.tiny") or shutil.which("vim") or self.fail("no vim; tools/setup installs it")

    def test_make_builds_what_has_changed_and_nothing_else(self):
        self.check(BUILD)

    def test_a_python_venv_is_made_filled_used_and_cleared(self):
        self.check(VENV, differs=["__pycache__"])  # what is compiled has the source's time in it

    def test_editors_leave_what_they_leave_on_a_plain_directory(self):
        self.check(EDITORS)

    def test_web_workers_share_a_database_in_wal_mode(self):
        self.check(WORKERS, differs=["shop.db", "log"])  # who comes first is chance


if __name__ == "__main__":
    unittest.main(verbosity=2)
