"""fio writes at random, in each way there is to write, and finds every block as it was written. Then the journal gives it again.

Run where fio is installed; `tools/setup` does not install it, as it brings forty megabytes of libraries.
"""
import unittest

from comparison import Comparison

# Each engine writes a file of its own, and reads all of it back by its checksums; then others read it by other ways.
FIO = r"""
run() { fio --output-format=terse --randseed=7 --size=4M --verify_fatal=1 --verify_state_save=0 "$@" >report 2>&1 || { cat report; exit 1; }; }
write() { name=$1; shift; run --name=$name --filename=$name --rw=randwrite --verify=crc32c --do_verify=1 "$@"; echo $name; }
read_again() { name=$1; shift; run --name=again --filename=$name --rw=randwrite --bs=4k --verify=crc32c --verify_only=1 --ioengine="$@"; }

write psync --ioengine=psync --bs=4k
write unaligned --ioengine=psync --bsrange=512-100k --bs_unaligned=1
write mapped --ioengine=mmap --bs=4k
write direct --ioengine=psync --direct=1 --bs=4k
write direct-sizes --ioengine=psync --direct=1 --bsrange=4k-256k --blockalign=4k
write threads --ioengine=psync --bs=4k --numjobs=4 --offset_increment=1M --size=1M
write vectors --ioengine=pvsync --bs=16k --fsync=16
write overwritten --ioengine=psync --bs=4k --overwrite=1 --fallocate=none
write allocated --ioengine=psync --bs=8k --fallocate=keep
write asynchronous --ioengine=libaio --direct=1 --iodepth=16 --bs=4k
write mixed --ioengine=psync --rw=randrw --bs=4k --fdatasync=32

# What was written in one way is read in another.
for name in psync mapped direct; do
  for engine in mmap psync 'psync --direct=1'; do  # these words are options
    read_again $name $engine; echo $name by $engine
  done
done
cp psync damaged; printf X | dd of=damaged bs=1 seek=50000 conv=notrunc 2>/dev/null
(read_again damaged psync) >/dev/null && echo 'a wrong byte was not noticed'
rm report damaged
stat -c '%n %s' *
"""


class Fio(Comparison):
    def test_every_block_is_as_it_was_written(self):
        written = ["psync", "unaligned", "mapped", "direct", "direct-sizes", "threads", "vectors", "overwritten", "allocated",
                   "asynchronous", "mixed"]
        self.check(FIO, differs=written)  # fio puts the time into each block


if __name__ == "__main__":
    unittest.main(verbosity=2)
