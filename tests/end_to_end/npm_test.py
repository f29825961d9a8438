"""npm installs, changes and removes a set of packages that depend on each other, and node runs them. No network is needed.

Run where node and npm are installed; `tools/setup` does not install them, as Debian's npm brings some hundreds of packages.
"""
import unittest

from comparison import Comparison

NPM = r"""
export npm_config_cache="$PWD/cache" npm_config_offline=true npm_config_audit=false npm_config_fund=false npm_config_logs_max=0
export npm_config_update_notifier=false npm_config_userconfig="$PWD/npmrc" npm_config_loglevel=error NODE_COMPILE_CACHE="$PWD/compiled"
touch npmrc
do_it() { npm "$@" --no-progress >"$npm_config_cache.said" || exit; sed 's/ in .*//' "$npm_config_cache.said"; }

# Twelve packages, packed by npm, each of which needs the two after it. The last has a program and a script that runs on installing.
mkdir packages; cd packages
for i in 12 11 10 9 8 7 6 5 4 3 2 1; do
  mkdir -p part-$i/lib; cd part-$i
  needs=; [ $i = 12 ] || needs="\"part-$((i + 1))\": \"file:$PWD/../part-$((i + 1))-1.0.0.tgz\""
  [ $i -ge 11 ] || needs="$needs, \"part-$((i + 2))\": \"file:$PWD/../part-$((i + 2))-1.0.0.tgz\""
  extra=; [ $i != 12 ] || extra=', "bin": {"count": "count.js"}, "scripts": {"postinstall": "echo here > made"}'
  echo "{\"name\": \"part-$i\", \"version\": \"1.0.0\", \"main\": \"index.js\", \"dependencies\": {$needs}$extra}" > package.json
  for n in $(seq 1 40); do echo "module.exports = $n;" > lib/n$n.js; done
  { echo 'let sum = 0; for (let n = 1; n <= 40; n++) sum += require(`./lib/n${n}.js`);'
    [ $i = 12 ] || echo "sum += require('part-$((i + 1))');"
    echo 'module.exports = sum;'; } > index.js
  [ $i != 12 ] || { echo '#!/usr/bin/env node'; echo "console.log(require('.') + require('./package.json').version);"; } > count.js
  [ $i != 12 ] || chmod +x count.js
  cd ..
done
npm pack --silent ./part-*
sha256sum *.tgz; cd ..

mkdir site; cd site
echo '{"name": "site", "version": "1.0.0", "private": true, "scripts": {"start": "node main.js && count"}}' > package.json
do_it install ../packages/part-1-1.0.0.tgz
echo "console.log(require('part-1'), __dirname);" > main.js
npm run --silent start
npm ls --all --parseable | sort
ls node_modules | wc -l; readlink node_modules/.bin/count; cat node_modules/part-12/made
do_it install ../packages/part-1-1.0.0.tgz    # it is there already
do_it ci                                      # away with all, and again, by the lock file
npm run --silent start

# One is changed by hand, noticed, and put right; another one is linked to where it is made.
rm node_modules/part-7/lib/n3.js; node main.js 2>/dev/null || echo broken
rm -rf node_modules/part-7; do_it install; node main.js
do_it install ../packages/part-12
readlink node_modules/part-12; node -p "require('part-12')"; node main.js
do_it uninstall part-1 part-12; ls -A node_modules; cat package.json package-lock.json
npm cache verify | sed -n 's/ (.*//; /^Content/p'
cd ..; do_it install --global --prefix "$PWD/global" ./packages/part-12-1.0.0.tgz; global/bin/count
find cache/_cacache/content-v2 -type f | wc -l
rm -rf cache cache.said compiled
"""


class Npm(Comparison):
    def test_packages_are_installed_run_and_removed(self):
        self.check(NPM)


if __name__ == "__main__":
    unittest.main(verbosity=2)
