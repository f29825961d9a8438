#include "tests/fuzz/whole_store.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/check.h"
#include "fs/guest.h"
#include "instance/history.h"
#include "instance/instance.h"
#include "journal/compressed_segment.h"
#include "journal/recovery.h"
#include "tests/fuzz/volume.h"
#include "tests/journal/fake_world.h"
#include "tests/replay/memory_member.h"

namespace reprise::fuzz {
namespace {

namespace files = std::filesystem;

class Scratch {
 public:
  Scratch() {
    const bool memory = files::is_directory("/dev/shm");
    std::string pattern =
        (memory ? files::path("/dev/shm") : files::temp_directory_path()) / "reprise-fuzz-XXXXXX";
    CHECK(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Scratch() {
    std::error_code ignored;
    files::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Writes a store in which every call of a guest is a batch.
class Writer {
 public:
  explicit Writer(const std::string& path) : path_(path) {
    auto store = store::Store::create(path, kVolumeOfSeeds.volume);
    CHECK(store);
    instance::InstanceOptions options{.holder = {1, "fuzz"}, .clock = clock_, .random = random_};
    options.journal = {.segment_bytes = 2500, .compress = false, .threads = false};
    auto instance = instance::Instance::open(std::move(*store), options);
    CHECK(instance);
    instance_ = std::move(*instance);
  }

  void write(int from, int to) {
    fs::Guest guest(instance_->filesystem());
    for (int n = from; n < to; ++n) {
      clock_.advance_ms(1000);
      CHECK(guest.write_file(fmt::format("/{}", n % 5), fmt::format("{:0>{}}", n, 40 + n * 13 % 200)));
      CHECK(instance_->sync());
    }
  }
  void mark(std::string_view name) { CHECK(instance_->mark(name, "")); }
  void snapshot(std::string_view label) { CHECK(instance_->snapshot(label)); }
  void note_digests() {
    CHECK(instance_->sync());
    auto digest_at = [&](LogIndex index) {
      auto state = instance::state_at(*instance_->store(), "main", index);
      CHECK(state);
      whole_.digests.insert({state->head.digest().lo, state->head.digest().hi});
    };
    for (LogIndex i = instance_->journal().first(); i <= instance_->journal().last(); ++i) digest_at(i);
    const Digest128 empty = fs::Head::create(Timestamp{}).digest();
    whole_.digests.insert({empty.lo, empty.hi});
  }
  void trim() { CHECK(instance_->trim()); }

  WholeStore end(bool closed) {
    if (closed) CHECK(instance_->close());
    instance_.reset();
    if (closed) compress();
    whole_.files = read_files(path_);
    return std::move(whole_);
  }

 private:
  void compress() const {
    auto store = store::Store::open(path_);
    CHECK(store);
    auto journal = (*store)->journal_directory("main");
    CHECK(journal);
    auto sequences = *journal::list_segments(**journal);
    CHECK(sequences.size() > 2);
    sequences.pop_back();
    for (uint64_t sequence : sequences) {
      CHECK(journal::compress_segment(**journal, sequence, [] { return false; }));
      CHECK(journal::replace_by_compressed(**journal, sequence));
    }
  }

  const std::string path_;
  replay::ManualClock clock_;
  test::FakeRandom random_{3};
  std::unique_ptr<instance::Instance> instance_;
  WholeStore whole_;
};

WholeStore killed_store(const std::string& path) {
  Writer writer(path);
  writer.write(0, 6);
  writer.mark("early");
  writer.snapshot("kept");
  writer.write(6, 16);
  writer.mark("late");
  writer.write(16, 20);
  writer.note_digests();
  return writer.end(false);
}

WholeStore closed_store(const std::string& path) {
  Writer writer(path);
  writer.write(0, 12);
  writer.mark("early");
  writer.snapshot("");
  writer.note_digests();
  writer.trim();
  writer.write(12, 24);
  writer.mark("late");
  writer.snapshot("kept");
  writer.write(24, 36);
  writer.note_digests();
  return writer.end(true);
}

bool is_file_of_a_store(const files::directory_entry& entry) {
  const std::string name = entry.path().filename();
  return entry.is_regular_file() && name != "lock" && !name.ends_with("-lock");
}

}  // namespace

std::string scratch_folder() {
  static const Scratch scratch;
  return scratch.path();
}

const std::vector<WholeStore>& whole_stores() {
  static const std::vector<WholeStore> stores = [] {
    std::vector<WholeStore> made;
    made.push_back(killed_store(scratch_folder() + "/killed"));
    made.push_back(closed_store(scratch_folder() + "/closed"));
    return made;
  }();
  return stores;
}

StoreFiles read_files(const std::string& folder) {
  StoreFiles found;
  for (const auto& entry : files::recursive_directory_iterator(folder)) {
    if (!is_file_of_a_store(entry)) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string text(std::istreambuf_iterator<char>(in), {});
    const ByteView bytes = as_bytes(text);
    found[files::relative(entry.path(), folder)] = Bytes(bytes.begin(), bytes.end());
  }
  return found;
}

void write_files(const std::string& folder, const StoreFiles& all) {
  files::remove_all(folder);
  for (const auto& [name, bytes] : all) {
    const files::path path = files::path(folder) / name;
    files::create_directories(path.parent_path());
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    CHECK(out.good());
  }
}

}  // namespace reprise::fuzz
