"""Programs do inside an instance what they do on a plain directory, and replaying the journal gives what they left."""
import unittest

from comparison import Comparison

PHP = r"""
mkdir -p site/cache
cat > site/build.php <<'SCRIPT'
<?php
$db = new PDO('sqlite:' . __DIR__ . '/site.db');
$db->setAttribute(PDO::ATTR_ERRMODE, PDO::ERRMODE_EXCEPTION);
echo $db->query('PRAGMA journal_mode')->fetchColumn(), "\n";
$db->exec('CREATE TABLE post (id INTEGER PRIMARY KEY, title TEXT UNIQUE, body TEXT, seen INTEGER DEFAULT 0)');
$db->beginTransaction();
$insert = $db->prepare('INSERT INTO post (title, body) VALUES (?, ?)');
for ($i = 1; $i <= 300; $i++) $insert->execute(["post $i", str_repeat("text of $i. ", 40)]);
$db->commit();
for ($i = 0; $i < 20; $i++) $db->exec("UPDATE post SET seen = seen + $i WHERE id % 7 = " . $i % 7);
$db->beginTransaction();
$db->exec('DELETE FROM post');
$db->rollBack();
foreach ($db->query('SELECT * FROM post') as $row) {
    $page = __DIR__ . "/cache/$row[id].html";
    file_put_contents("$page.new", "<h1>$row[title]</h1><p>$row[seen]</p>$row[body]", LOCK_EX);
    rename("$page.new", $page);
}
foreach (glob(__DIR__ . '/cache/1?.html') as $page) unlink($page);
$log = fopen(__DIR__ . '/log', 'a');
for ($i = 0; $i < 100; $i++) { fwrite($log, "line $i\n"); }
fclose($log);
$part = fopen(__DIR__ . '/log', 'r+');
ftruncate($part, 500); fseek($part, 100); fwrite($part, 'overwritten'); fclose($part);
chmod(__DIR__ . '/log', 0640);
touch(__DIR__ . '/touched', 1000000000);
symlink('cache', __DIR__ . '/pages');
link(__DIR__ . '/log', __DIR__ . '/log.hard');
echo $db->query('SELECT count(*) || " " || sum(seen) FROM post')->fetchColumn(), "\n";
echo count(scandir(__DIR__ . '/pages')), ' ', filesize(__DIR__ . '/log'), ' ', stat(__DIR__ . '/log')['nlink'], ' ',
    filemtime(__DIR__ . '/touched'), ' ', md5_file(__DIR__ . '/cache/200.html'), "\n";
SCRIPT
php site/build.php
"""

PYTHON = r"""
cat > work.py <<'SCRIPT'
import hashlib, mmap, os, shutil, sqlite3, sys
for mode in ('delete', 'truncate', 'wal'):
    name = f'{mode}.db'
    db = sqlite3.connect(name)
    print(db.execute(f'PRAGMA journal_mode = {mode}').fetchone())
    db.execute('CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)')
    db.commit()
    for round in range(15):
        db.executemany('INSERT INTO t (v) VALUES (?)', [(bytes([round]) * 700,) for _ in range(40)])
        db.execute('UPDATE t SET v = ? WHERE k % 11 = ?', (b'changed' * round, round % 11))
        db.commit()
    db.execute('DELETE FROM t WHERE k % 3 = 0')
    db.rollback()
    other = sqlite3.connect(name)
    print(sorted(n for n in os.listdir('.') if n.startswith(name)))
    print(other.execute('SELECT count(*), total(length(v)) FROM t').fetchone(), other.execute('PRAGMA integrity_check').fetchone())
    other.close()
    db.execute('VACUUM')
    db.close()
    print(sorted(n for n in os.listdir('.') if n.startswith(name)))

os.makedirs('deep/' + '/'.join('abcdefgh'))
with open('sparse', 'wb') as f:
    f.seek(5_000_000); f.write(b'end')
print(os.stat('sparse').st_size, os.stat('sparse').st_blocks < 1000)
with open('mapped', 'wb+') as f:
    f.truncate(100_000)
    with mmap.mmap(f.fileno(), 0) as m:
        m[50_000:50_005] = b'hello'
        m.flush()
print(hashlib.sha256(open('mapped', 'rb').read()).hexdigest())
f = open('gone', 'w+'); f.write('still here'); f.flush(); os.unlink('gone'); f.seek(0)
print(f.read(), os.fstat(f.fileno()).st_nlink); f.close()
os.mkdir('from'); open('from/file', 'w').write('x'); os.mkdir('to'); os.rename('from', 'to')
print(os.listdir('to'))
for attempt in (lambda: os.rmdir('to'), lambda: os.mkdir('to'), lambda: os.rename('to', 'to/below'), lambda: open('none'),
                lambda: os.link('deep', 'hard'), lambda: os.readlink('to'), lambda: os.listdir('sparse'),
                lambda: open('x' * 256, 'w'), lambda: os.open('to/file', os.O_CREAT | os.O_EXCL)):
    try:
        attempt(); print('done')
    except OSError as error:
        print(error.errno)
os.setxattr('sparse', 'user.note', b'text'); print(os.listxattr('sparse'), os.getxattr('sparse', 'user.note'))
open(b'bytes-\xff\xfe', 'w').close(); open('umlaut-\u00fc', 'w').close()
os.mkfifo('fifo', 0o622)
shutil.copytree('deep', 'copy')
os.chmod('copy', 0o1751); os.chmod('mapped', 0o400)
for i in range(400): open(f'many-{i}', 'w').write(str(i))
for i in range(0, 400, 3): os.unlink(f'many-{i}')
print(len(os.listdir('.')))
SCRIPT
python3 work.py
"""

GIT = r"""
git clone -q "$SOURCE" clone
cd clone
git config gc.auto 0
git config pack.threads 1
git config core.trustctime false
for i in 1 2 3 4 5 6; do
  echo "change $i" >> file-$i; echo "new $i" > new-$i; git add -A; git commit -q -m "change $i"
done
git checkout -q -b side HEAD~3; git mv file-1 moved; git commit -q -m moved
git checkout -q -; git merge -q -m merge side
git branch -D side -q
git tag v1
git gc -q --prune=now
git fsck --full --strict
git status --short
git log --format='%H %s'
git ls-files --stage
find .git -name '*.pack' | wc -l
"""

SHELL = r"""
cp -a "$SOURCE" source
tar cf packed.tar --sort=name --mtime=@1000000000 -C source .
mkdir unpacked; tar xpf packed.tar -C unpacked
tar cf - -C unpacked . | tar xpf - --one-top-level=twice
rsync -a unpacked/ synced/
echo more >> unpacked/file-2; rm unpacked/file-3; mv unpacked/file-4 unpacked/renamed
rsync -a --delete --itemize-changes unpacked/ synced/ | sort
rsync -a --inplace --checksum --delete --itemize-changes twice/ synced/ | sort
diff -r --no-dereference twice synced && echo same
sqlite3 shell.db "CREATE TABLE t (a, b); CREATE INDEX i ON t (b);
  WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3000) INSERT INTO t SELECT x, x * x % 1000 FROM n;
  UPDATE t SET a = a || 'x' WHERE b < 100; DELETE FROM t WHERE b > 900; SELECT count(*), sum(b) FROM t;"
sqlite3 shell.db .dump > shell.sql
sqlite3 shell.db 'PRAGMA integrity_check; VACUUM;'
sqlite3 again.db < shell.sql
sqlite3 again.db '.backup copy.db'
sqlite3 copy.db 'SELECT count(*), sum(b) FROM t'
sed -i 's/INSERT/insert/' shell.sql; sha256sum shell.sql
chmod -R g+w,o-r twice; chmod +t twice/file-1
find . -type l -exec readlink {} + | sort
ls -A unpacked | wc -l
"""


class Workloads(Comparison):
    def setUp(self):
        super().setUp()
        self.source = self.work / "source"
        script = f"""
            mkdir {self.source}; cd {self.source}; git init -q -b main .
            for i in 1 2 3 4 5 6 7 8 9; do seq $i 400 > file-$i; mkdir -p dir/$i; echo $i > dir/$i/file; done
            chmod 755 file-5; ln -s dir/3 link; ln -s nowhere dangling
            git add -A; git commit -q -m first"""
        self.succeed("sh", "-euc", script, env=self.environment)
        self.environment["SOURCE"] = str(self.source)

    def test_php_with_sqlite(self):
        self.check(PHP)

    def test_python_with_sqlite_and_files(self):
        self.check(PYTHON, differs=["fifo"])  # diff takes no two pipes for equal

    def test_git_clone_commit_merge_gc_fsck(self):
        self.check(GIT, differs=["index"])

    def test_tar_rsync_and_the_sqlite_shell(self):
        self.check(SHELL, differs=["index"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
