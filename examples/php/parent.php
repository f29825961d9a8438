<?php
// A PHP in an instance that starts another PHP, which gets an instance of its own: a fork of the parent's.
// What the child did is the parent's when it has ended well, all of it; if not, nothing is left of it.
//
//   reprise run --store STORE -- php parent.php

// As proc_open, but in a fork. Give what it returns to proc_close_in_fork.
function proc_open_in_fork(array $command, array $descriptors, ?array &$pipes): array
{
    static $count = 0;
    $branch = 'child-' . getmypid() . '-' . ++$count;
    $store = getenv('REPRISE_STORE');
    reprise('fork', $store, $branch);
    // The child has a mount of its own at the same place, so paths mean the same; its history has its name.
    $run = ['reprise', 'run', '--store', "$store:$branch", '--label', $branch, '--', ...$command];
    $process = proc_open($run, $descriptors, $pipes);
    if ($process === false) {
        reprise('discard', $store, $branch);
        throw new RuntimeException("cannot run $command[0]");
    }
    return ['process' => $process, 'store' => $store, 'branch' => $branch];
}

// As proc_close. Joins what the child did if it ended with 0.
function proc_close_in_fork(array $child): int
{
    $status = proc_close($child['process']);
    reprise($status === 0 ? 'join' : 'discard', $child['store'], $child['branch']);
    return $status;
}

function reprise(string ...$arguments): void
{
    $process = proc_open(['reprise', ...$arguments], [1 => ['pipe', 'w'], 2 => ['redirect', 1]], $pipes);
    $said = stream_get_contents($pipes[1]);
    if (proc_close($process) !== 0) {
        throw new RuntimeException("reprise $arguments[0]: $said");
    }
}

$update = '
    file_put_contents("cache/page", strtoupper(file_get_contents("page")));
    unlink("old");
    echo "child: done\n";
    exit((int) $argv[1]);';

mkdir('cache');
file_put_contents('page', 'welcome');
file_put_contents('old', 'x');
foreach ([1, 0] as $status) {
    $child = proc_open_in_fork([PHP_BINARY, '-r', $update, '--', (string) $status], [1 => ['pipe', 'w']], $pipes);
    $said = stream_get_contents($pipes[1]);
    $before = file_exists('cache/page') ? 'seen too early' : 'not seen yet';
    $ended = proc_close_in_fork($child);
    clearstatcache();
    $after = file_exists('cache/page') ? file_get_contents('cache/page') : 'nothing';
    echo $said, "parent: it ended with $ended; what it did was $before, and now there is $after\n";
}
echo implode(' ', array_diff(scandir('.'), ['.', '..'])), "\n";
