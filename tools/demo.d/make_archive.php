<?php
// Makes the archive that the demo's site is unpacked from: the pages in site/, a theme, images, a cache. The same bytes
// every time.
//
//   php -d phar.readonly=0 make_archive.php FILE.tar

if ($argc !== 2 || !str_ends_with($argv[1], '.tar')) {
    fwrite(STDERR, "usage: php -d phar.readonly=0 make_archive.php FILE.tar\n");
    exit(2);
}
@unlink($argv[1]);
mt_srand(20, MT_RAND_MT19937);

function random_string(int $length): string
{
    $bytes = '';
    while (strlen($bytes) < $length) {
        $bytes .= pack('N', mt_rand(0, 0x7fffffff) << 1 | mt_rand(0, 1));
    }
    return substr($bytes, 0, $length);
}

function words(int $count): string
{
    static $list = ['tree', 'branch', 'leaf', 'root', 'inode', 'page', 'batch', 'segment', 'frame', 'vector', 'mark', 'head'];
    $text = [];
    for ($i = 0; $i < $count; $i++) {
        $text[] = $list[mt_rand(0, count($list) - 1)];
    }
    return ucfirst(implode(' ', $text));
}

$tar = new PharData($argv[1]);
foreach (['index.php', 'site.php'] as $page) {
    $tar->addFile(__DIR__ . "/site/$page", $page);
}
$tar->addFromString('theme/style.css', "body { font: 18px/1.5 serif; margin: 3em auto; max-width: 40em }\n");
$tar->addFromString('config.php', "<?php\nreturn ['title' => 'The Daily Replay'];\n");
for ($i = 1; $i <= 140; $i++) {
    $tar->addFromString(sprintf('theme/parts/part-%03d.html', $i), '<p>' . words(mt_rand(20, 400)) . "</p>\n");
}
for ($i = 1; $i <= 60; $i++) {
    $tar->addFromString(sprintf('lib/%s/module_%02d.php', chr(ord('a') + $i % 6), $i),
        "<?php\n// " . words(mt_rand(30, 900)) . "\nreturn $i;\n");
}
for ($i = 1; $i <= 80; $i++) {
    $tar->addFromString(sprintf('uploads/incoming/image-%03d.jpg', $i), random_string(mt_rand(20_000, 120_000)));
}
for ($i = 1; $i <= 120; $i++) {
    $tar->addFromString(sprintf('cache/%02x/page-%03d.html', $i % 16, $i), '<p>' . words(mt_rand(500, 4000)) . "</p>\n");
}
