<?php
// crash_writer.php LOG LAST-WAL LAST-ROLLBACK: writes transactions into two databases until it is killed, and logs those that
// are on the disk. crash_writer.py checks them.
[, $path, $last['wal'], $last['rollback']] = $argv;
$log = fopen($path, 'a');
stream_set_write_buffer($log, 0);
foreach (['wal' => 'FULL', 'rollback' => 'EXTRA'] as $mode => $synchronous) {
    $databases[$mode] = new PDO("sqlite:php-$mode.db", options: [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
    $databases[$mode]->exec("PRAGMA synchronous = $synchronous");
}
while (true) {
    foreach ($databases as $mode => $database) {
        $number = ++$last[$mode];
        $database->beginTransaction();
        $insert = $database->prepare('INSERT INTO t (half, text) VALUES (?, ?)');
        for ($half = 0; $half < 2; $half++) {
            $insert->execute([$number, str_repeat('x', $number * 53 % 2000)]);
        }
        $database->commit();
        // Only if the instance is there still: SQLite lets a transaction pass when it cannot open the directory to sync it.
        disk_free_space('.') !== false or exit(1);
        fwrite($log, "php-$mode $number\n");
    }
}
