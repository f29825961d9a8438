<?php
// What the pages of the demo's site have in common. It lies in the volume beside them.

const DATABASE = 'data/site.db';

/** Files and bytes below a directory, without SQLite's journal, which comes and goes. */
function count_files(string $top): array
{
    $files = 0;
    $bytes = 0;
    $entries = new RecursiveIteratorIterator(new RecursiveDirectoryIterator($top, FilesystemIterator::SKIP_DOTS));
    foreach ($entries as $entry) {
        if ($entry->isFile() && !str_ends_with($entry->getFilename(), '-journal')) {
            $files++;
            $bytes += $entry->getSize();
        }
    }
    return ['files' => $files, 'bytes' => $bytes];
}

/** The numbers that A prints and B's pages show. */
function count_rows(PDO $db): array
{
    return [
        'posts' => (int) $db->query('SELECT count(*) FROM posts')->fetchColumn(),
        'comments' => (int) $db->query('SELECT count(*) FROM comments')->fetchColumn(),
        'views' => (int) $db->query('SELECT coalesce(sum(views), 0) FROM posts')->fetchColumn(),
    ];
}

/**
 * What changes when a transaction begins or ends: whether there is a rollback journal, and the change counter in the
 * database's header. Null while a transaction is under way.
 */
function database_stamp(): ?string
{
    clearstatcache();
    if (!is_file(DATABASE) || file_exists(DATABASE . '-journal')) {
        return null;
    }
    return file_get_contents(DATABASE, false, null, 24, 4) ?: null;
}

/**
 * Calls $read with the database, opened for reading, at a moment between two transactions of the writer.
 *
 * SQLite's locks do not reach from one instance to another yet, so a follower can arrive in the middle of a transaction. It
 * is noticed by the journal's file or by the counter, and then tried again.
 */
function read_database(callable $read, ?int &$tries = null): mixed
{
    for ($tries = 1; $tries <= 200; $tries++) {
        $before = database_stamp();
        if ($before !== null) {
            try {
                $db = new PDO('sqlite:' . DATABASE, null, null, [
                    PDO::SQLITE_ATTR_OPEN_FLAGS => PDO::SQLITE_OPEN_READONLY,
                    PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
                ]);
                $result = $read($db);
                unset($db);
                if (database_stamp() === $before) {
                    return $result;
                }
            } catch (PDOException) {
                // A transaction began after the look at the stamp; the next try tells.
            }
        }
        usleep(10_000);
    }
    throw new RuntimeException('no moment between two transactions within two seconds');
}
