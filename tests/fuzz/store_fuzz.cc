#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/check.h"
#include "instance/history.h"
#include "instance/instance.h"
#include "instance/repair.h"
#include "tests/fuzz/target.h"
#include "tests/fuzz/whole_store.h"
#include "tests/journal/fake_world.h"
#include "tests/replay/memory_member.h"
#include "tools/cli/branch_check.h"
#include "tools/cli/branch_repair.h"

namespace reprise::fuzz {
namespace {

constexpr size_t kDamageMax = 6;
constexpr size_t kFileMax = 1 << 20;

// A failed law is no use without what was seen.
void check(bool holds, const char* law, const std::string& seen) {
  if (!holds) std::fputs(fmt::format("{}: {}\n", law, seen).c_str(), stderr);
  CHECK(holds);
}

Bytes& file_at(StoreFiles& files, size_t n) {
  return std::next(files.begin(), static_cast<ptrdiff_t>(n % files.size()))->second;
}

void spoil(Bytes& bytes, size_t at, size_t count, std::byte flip) {
  for (size_t i = at; i < std::min(bytes.size(), at + count); ++i) bytes[i] ^= flip;
}

// One damage: which file (u8), what (u8), where (u32), with what (u16).
void damage(StoreFiles& files, ByteReader& in) {
  auto which = in.value<uint8_t>(), what = in.value<uint8_t>();
  auto where = in.value<uint32_t>();
  auto value = in.value<uint16_t>();
  Bytes& bytes = file_at(files, which);
  const size_t at = where % (bytes.size() + 1);
  const auto flip = static_cast<std::byte>((value & 255) == 0 ? 1 : value & 255);
  const size_t count = std::min<size_t>(value, bytes.size() - at);
  switch (what % 8) {
    case 0:
      return spoil(bytes, at, 1, flip);
    case 1:
      return spoil(bytes, at, 2, flip);
    case 2:
      return spoil(bytes, at, value, std::byte{0x5a});
    case 3:
      return bytes.resize(at);
    case 4:
      std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(at), count, std::byte{0});
      return;
    case 5:
      files.erase(std::next(files.begin(), which % static_cast<ptrdiff_t>(files.size())));
      return;
    case 6:  // what lies there appears once more, behind itself
      if (bytes.size() + count > kFileMax) return;
      {
        const Bytes piece(bytes.begin() + static_cast<ptrdiff_t>(at),
                          bytes.begin() + static_cast<ptrdiff_t>(at + count));
        bytes.insert(bytes.begin() + static_cast<ptrdiff_t>(at), piece.begin(), piece.end());
      }
      return;
    case 7:
      return std::swap(bytes, file_at(files, value));
  }
}

struct Done {
  instance::StoreRepaired store;
  cli::Repaired branch;
  instance::MarksRestored marks;
  // That marks cannot be looked for, as no snapshot reaches the journal's beginning, is said each time.
  bool nothing() const { return !store.needed && branch.nothing() && marks.marks.empty(); }
};

std::string describe(const Done& done) {
  const journal::JournalRepair& journal = done.branch.journal;
  std::string text =
      fmt::format("batches {} to {}, seen {}, snapshot reaches {}; lost {}, begins {}\n", journal.first,
                  journal.last, journal.seen, done.branch.reaches, done.branch.lost(), done.branch.begins);
  for (const std::string& found : done.store.found) text += "found: " + found + "\n";
  for (const instance::LostSnapshot& lost : done.store.lost) text += "lost: " + lost.why.message() + "\n";
  for (const std::string& name : done.store.set_aside) text += "kept aside: " + name + "\n";
  for (const Error& problem : journal.problems) text += "found: " + problem.message() + "\n";
  for (const std::string& where : journal.corrected) text += "put right: " + where + "\n";
  for (const std::string& name : journal.kept) text += "kept aside: " + name + "\n";
  for (const std::string& mark : done.branch.lost_marks) text += "lost: mark " + mark + "\n";
  for (const std::string& mark : done.marks.marks) text += "found: mark " + mark + "\n";
  for (const std::string& why : done.marks.unread) text += "marks: " + why + "\n";
  if (done.branch.no_base) text += "cannot be opened: " + done.branch.no_base->message() + "\n";
  return text;
}

// As `reprise repair` does it.
Result<Done> repair(const std::string& path) {
  Done done;
  done.store = TRY(instance::repair_store(path));
  auto store = TRY(store::Store::open(path, store::Access::kWrite));
  auto lock = TRY(store->lock_branch("main", {getpid(), "fuzz"}));
  auto journal = TRY(store->journal_directory("main"));
  // Not tried long: one_wrong_byte_test.cc and repair_test.cc do that.
  done.branch = TRY(cli::repair_branch(*store, "main", *journal, {.every_value = 64, .every_bit = 512}));
  done.marks = TRY(instance::restore_lost_marks(*store));
  return done;
}

// As `reprise verify` does it.
std::vector<std::string> problems_in(const std::string& path) {
  auto store = store::Store::open(path, store::Access::kRead);
  if (!store) return {store.error().message()};
  auto branch = cli::verify_branch(**store, "main");
  if (!branch) return {branch.error().message()};
  auto files = (*store)->check_files();
  if (!files) return {files.error().message()};
  for (const Error& damage : files->damage) branch->problems.push_back(damage.message());
  return branch->problems;
}

bool is_recorded(const WholeStore& whole, const Digest128& digest) {
  return whole.digests.contains({digest.lo, digest.hi});
}

// Is every byte of a file there: whole, whatever it is called now, or its end in a file that was set aside
// and what was before that in its place or in another such file?
bool is_kept(const StoreFiles& after, const std::string& name, const Bytes& bytes) {
  auto is_of_it = [&](const auto& file) {
    return file.first == name || file.first.starts_with(name + ".cut-");
  };
  return std::ranges::any_of(after, [&](const auto& end) {
    const Bytes& aside = end.second;
    if (aside == bytes) return true;
    if (!is_of_it(end) || aside.size() > bytes.size()) return false;
    const auto rest = static_cast<ptrdiff_t>(bytes.size() - aside.size());
    return std::equal(aside.rbegin(), aside.rend(), bytes.rbegin()) &&
           std::ranges::any_of(after, [&](const auto& begin) {
             const Bytes& left = begin.second;
             return is_of_it(begin) && std::ssize(left) >= rest &&
                    std::equal(left.begin(), left.begin() + rest, bytes.begin());
           });
  });
}

// What was opened has more than what was repaired: of a journal nothing less.
void expect_journal_kept(const StoreFiles& once, const StoreFiles& after, const Done& done) {
  for (const auto& [name, bytes] : once) {
    if (!name.ends_with(".seg")) continue;
    auto place = after.find(name);
    const bool grew = place != after.end() && place->second.size() >= bytes.size() &&
                      std::equal(bytes.begin(), bytes.end(), place->second.begin());
    check(grew || is_kept(after, name, bytes), "opening takes nothing away", name + "\n" + describe(done));
  }
}

// A catalogue that is not set aside goes on being written; a byte that is put right is named, not kept.
void expect_kept(const StoreFiles& before, const StoreFiles& after, const Done& done) {
  std::string right;
  for (const std::string& where : done.branch.journal.corrected) right += where + "\n";
  for (const auto& [name, bytes] : before) {
    const bool goes_on = name == "catalogue.lmdb" && !done.store.catalogue_anew;
    if (goes_on || right.find(name + ": at offset") != std::string::npos) continue;
    check(is_kept(after, name, bytes), "every byte is somewhere", name + "\n" + describe(done));
  }
}

void expect_the_same(const StoreFiles& once, const StoreFiles& twice) {
  for (const auto& files : {&once, &twice}) {
    for (const auto& [name, bytes] : *files) {
      if (name == "catalogue.lmdb") continue;
      auto other = (files == &once ? twice : once).find(name);
      check(other != (files == &once ? twice : once).end() && other->second == bytes, "twice is once", name);
    }
  }
}

void expect_opens(const std::string& path, const WholeStore& whole) {
  auto store = store::Store::open(path);
  check(store.has_value(), "what was repaired opens", store ? "" : store.error().message());
  {
    auto state = instance::state_at(**store, "main", std::nullopt);
    check(state.has_value(), "it can be read", state ? "" : state.error().message());
    check(is_recorded(whole, state->head.digest()), "its state was recorded", path);
  }
  replay::ManualClock clock;
  test::FakeRandom random(5);
  instance::InstanceOptions options{.holder = {1, "fuzz"}, .clock = clock, .random = random};
  options.journal = {.compress = false, .threads = false};
  auto opened = instance::Instance::open(std::move(*store), options);
  check(opened.has_value(), "it opens to write", opened ? "" : opened.error().message());
  check(is_recorded(whole, (*opened)->filesystem().digest()), "it opens as it was recorded", path);
}

}  // namespace

void fuzz_store(ByteView input) {
  if (input.empty()) return;
  ByteReader in(input);
  const WholeStore& whole = whole_stores()[in.value<uint8_t>() % whole_stores().size()];
  StoreFiles damaged = whole.files;
  for (size_t n = 0; n < kDamageMax && in.remaining() >= 8 && !damaged.empty(); ++n) damage(damaged, in);
  const std::string path = scratch_folder() + "/store";
  write_files(path, damaged);
  auto done = repair(path);
  const StoreFiles once = read_files(path);
  expect_kept(damaged, once, done ? *done : Done{});
  if (!done) return;  // and says why
  const bool can_be_opened = !done->branch.no_base;
  if (can_be_opened) {
    auto problems = problems_in(path);
    check(problems.empty(), "what was repaired verifies", problems.empty() ? "" : problems[0]);
  }
  auto again = repair(path);
  check(again.has_value(), "what was repaired can be once more", again ? "" : again.error().message());
  check(again->nothing() || !can_be_opened, "there is nothing to do a second time",
        describe(*done) + "then " + describe(*again));
  expect_the_same(once, read_files(path));
  if (!can_be_opened) return;
  expect_opens(path, whole);
  expect_journal_kept(once, read_files(path), *done);
}

std::vector<Bytes> store_seeds() {
  std::vector<Bytes> seeds;
  for (uint8_t store : {0, 1}) {
    for (size_t damages : {0, 1, 3}) {
      Bytes seed;
      append_value(seed, store);
      for (size_t n = 0; n < damages; ++n) {
        append_value(seed, static_cast<uint8_t>(n * 3));
        append_value(seed, static_cast<uint8_t>(n + damages));
        append_value(seed, static_cast<uint32_t>(400 * (n + 1)));
        append_value(seed, static_cast<uint16_t>(40));
      }
      seeds.push_back(std::move(seed));
    }
  }
  return seeds;
}

}  // namespace reprise::fuzz

REPRISE_FUZZ_TARGET(reprise::fuzz::fuzz_store)
