<?php
// The site's front page: posts from the database and a count of the files it is made of. With ?json only the numbers.

chdir(__DIR__);
require 'site.php';

try {
    [$rows, $newest] = read_database(fn (PDO $db) => [
        count_rows($db),
        $db->query('SELECT id, title, author, views FROM posts ORDER BY id DESC LIMIT 5')->fetchAll(PDO::FETCH_ASSOC),
    ], $tries);
} catch (RuntimeException $error) {
    http_response_code(503);
    header('Content-Type: text/plain; charset=utf-8');
    echo $error->getMessage(), "\n";
    exit;
}
$numbers = $rows + count_files('.') + ['tries' => $tries];

if (isset($_GET['json'])) {
    header('Content-Type: application/json');
    echo json_encode($numbers), "\n";
    exit;
}
?>
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>The Daily Replay</title>
<link rel="stylesheet" href="theme/style.css">
<h1>The Daily Replay</h1>
<ul>
<?php foreach ($newest as $post): ?>
  <li>#<?= $post['id'] ?> <b><?= htmlspecialchars($post['title']) ?></b>
      by <?= htmlspecialchars($post['author']) ?>, read <?= $post['views'] ?> times</li>
<?php endforeach ?>
</ul>
<p><?= $numbers['posts'] ?> posts, <?= $numbers['comments'] ?> comments, <?= $numbers['files'] ?> files.</p>
</html>
