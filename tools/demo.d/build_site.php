<?php
// Builds and runs a small site in the current directory, which is an instance's root: unpacks an archive, fills an SQLite
// database, renames, deletes, changes permissions, and then keeps the database busy. Between two transactions it sets
// marks, so that others can wait for a place in its history.
//
//   php build_site.php ARCHIVE.tar      with REPRISE (the command) and REPRISE_STORE (this instance's) in the environment
//
// Reads a line from stdin before it begins and one before it ends; prints one line for each step, and a JSON object with the
// numbers at each mark on descriptor 3.

const PAUSE_US = 70_000;  // between two transactions: visitors take their time

$reprise = getenv('REPRISE') ?: 'reprise';
$store = getenv('REPRISE_STORE');
if ($argc !== 2 || $store === false) {
    fwrite(STDERR, "usage: REPRISE_STORE=… php build_site.php ARCHIVE.tar\n");
    exit(2);
}
$numbers = fopen('php://fd/3', 'w');

function say(string $text): void
{
    echo $text, "\n";
}

/** Sets a mark and tells its numbers. */
function mark(string $name, ?PDO $db = null): void
{
    global $reprise, $store, $numbers;
    $line = implode(' ', array_map('escapeshellarg', [$reprise, 'mark', $store, $name]));
    exec("$line 2>&1", $output, $status);
    if ($status !== 0) {
        fwrite(STDERR, "mark $name: " . implode("\n", $output) . "\n");
        exit(3);
    }
    $all = ['mark' => $name] + count_files('.') + ($db ? count_rows($db) : []);
    fwrite($numbers, json_encode($all) . "\n");
    say("                                                          mark $name");
}

/** Runs statements as one transaction. */
function transaction(PDO $db, callable $body): void
{
    $db->beginTransaction();
    $body($db);
    $db->commit();
    usleep(PAUSE_US);
}

fgets(STDIN);
mt_srand(7, MT_RAND_MT19937);
umask(022);

// --- unpack
$begin = hrtime(true);
(new PharData($argv[1]))->extractTo('.');
$ms = (int) ((hrtime(true) - $begin) / 1e6);
require getcwd() . '/site.php';
$count = count_files('.');
say(sprintf('unpacked %d files, %.1f MB, in %d ms', $count['files'], $count['bytes'] / 1e6, $ms));
mark('unpacked');

// --- database
mkdir('data', 0755);
$db = new PDO('sqlite:' . DATABASE, null, null, [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
$mode = $db->query('PRAGMA journal_mode = DELETE')->fetchColumn();
transaction($db, function (PDO $db) {
    $db->exec('CREATE TABLE posts (id INTEGER PRIMARY KEY, title TEXT, author TEXT, body TEXT, views INTEGER DEFAULT 0)');
    $db->exec('CREATE TABLE comments (id INTEGER PRIMARY KEY, post INTEGER REFERENCES posts, text TEXT)');
    $db->exec('CREATE INDEX comments_by_post ON comments (post)');
});
say("created a database, journal_mode=$mode, three schema changes in one transaction");

$insert_post = $db->prepare('INSERT INTO posts (title, author, body) VALUES (?, ?, ?)');
$insert_comment = $db->prepare('INSERT INTO comments (post, text) VALUES (?, ?)');
$view_post = $db->prepare('UPDATE posts SET views = views + ? WHERE id = ?');

$write_posts = function (int $count) use ($db, $insert_post): void {
    for ($i = 0; $i < $count; $i++) {
        transaction($db, function () use ($insert_post, $i) {
            $insert_post->execute(["Notes on replay, part $i", ['Ada', 'Grace', 'Edsger'][$i % 3], str_repeat("Paragraph $i. ", 150)]);
        });
    }
};
$visit = function (int $count) use ($db, $insert_comment, $view_post): void {
    for ($i = 0; $i < $count; $i++) {
        transaction($db, function () use ($insert_comment, $view_post) {
            $post = mt_rand(1, 20);
            $view_post->execute([mt_rand(1, 9), $post]);
            $insert_comment->execute([$post, str_repeat('Well said. ', mt_rand(1, 30))]);
        });
    }
};

$write_posts(20);
say('wrote 20 posts, each in a transaction of its own');
mark('posts', $db);

// --- files
rename('uploads/incoming', 'uploads/2026');
foreach (glob('uploads/2026/*.jpg') as $number => $file) {
    if ($number % 2 === 0) {
        rename($file, str_replace('image', 'photo', $file));
    }
}
say('renamed a directory of 80 images, and 40 of the images in it');
foreach (glob('cache/*/*.html') as $number => $file) {
    unlink($file);
}
array_map('rmdir', glob('cache/*'));
say('deleted 120 cached pages and the 16 directories they were in');
chmod('config.php', 0600);
array_map(fn (string $file) => chmod($file, 0755), glob('lib/*/*.php'));
say('chmod 0600 of the configuration, 0755 of 60 modules');
for ($i = 0; $i < 12; $i++) {
    file_put_contents('theme/style.css.new', "body { font: 18px/1.5 serif; margin: {$i}em auto; max-width: 40em }\n");
    rename('theme/style.css.new', 'theme/style.css');
}
say('replaced the stylesheet 12 times, each by a rename over the old one');
mark('tidied', $db);

// --- visitors
foreach ([1, 2, 3, 4, 5] as $round) {
    $write_posts(1);
    $visit(35);
    say('a new post; 35 visits: comments inserted, views updated');
    mark("visits_$round", $db);
}

// --- the end
transaction($db, fn (PDO $db) => $db->exec('DELETE FROM comments WHERE id % 10 = 0'));
$db->exec('VACUUM');
say('deleted every tenth comment, VACUUM');
mark('finished', $db);
unset($insert_post, $insert_comment, $view_post, $db);
fgets(STDIN);
