// Conformance: what a Linux filesystem does, case by case, the same on each filesystem: guests in process, a
// FUSE mount served by this project, and one of the kernel's own, which proves the cases right.
//
// A case says what it expects (results and errors) and never asks which filesystem it is on. What one of
// them cannot do by nature is in tests/posix/waivers.cc with the reason. All but the guests in process need
// root.
//
//   TEST_P(Unlink, TakesANameAway) {
//     OK(root().write_file("f", "x"));
//     OK(root().unlink("f"));
//     FAILS(ENOENT, root().stat("f"));
//   }
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>
#include <memory>
#include <source_location>
#include <string>
#include <vector>

#include "tests/posix/calls.h"
#include "tests/posix/waivers.h"

namespace reprise::conformance {

using posix::Attributes;
using posix::Calls;
using posix::Credentials;
using posix::DirectoryEntry;
using posix::Outcome;
using posix::Which;
using posix::XattrMode;

// One filesystem, fresh and empty.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual std::unique_ptr<Calls> calls(const Credentials& who) = 0;
  // Empty, or what is wrong with the tree of one of ours as it is. Between calls.
  virtual std::string unsound() { return {}; }
  // Empty, or which law of ours does not hold. After it no more calls are made.
  virtual std::string complaint() { return {}; }
  // What one of ours has recorded and has become, to be compared.
  virtual std::string recorded() { return {}; }
  // From now on everything that changes answers EROFS.
  virtual void make_read_only() = 0;
  // Returns when what happens next gets another time than what has happened.
  virtual void tick() {}
};
// Null if it cannot be had here; `refusal` says why.
std::unique_ptr<Subject> make_subject(Which which, std::string& refusal);

// Where a suite is run: on guests in process, the FUSE mount and the oracle, but for what is waived
// (tests/posix/waivers.cc). Who is not root has the first alone.
std::vector<Which> filesystems_for(const std::string& suite, Which oracle);

class Conformance : public testing::TestWithParam<Which> {
 protected:
  void SetUp() override;
  void TearDown() override;

  Calls& as(const Credentials& who);
  Calls& root() { return as({0, 0, {}}); }
  // Alice and Bob share group 2000, Bob and Carol nothing.
  Calls& alice() { return as({1000, 1000, {2000}}); }
  Calls& bob() { return as({1001, 1001, {2000}}); }
  Calls& carol() { return as({1002, 1002, {}}); }
  void tick() { subject_->tick(); }
  void make_read_only() { subject_->make_read_only(); }
  std::string recorded() { return subject_->recorded(); }
  // That the tree of one of ours is in order, after this call.
  void expect_sound(std::string_view call);
  const posix::Waiver* waiver_of(std::string_view row) const;

  // The value, or a failure and nothing.
  template <class T>
  T must(const Outcome<T>& outcome, std::source_location at = std::source_location::current()) {
    EXPECT_TRUE(outcome.has_value()) << posix::name_of(outcome) << " in line " << at.line();
    expect_sound("the call of line " + std::to_string(at.line()));
    return outcome ? *outcome : T{};
  }

 private:
  std::unique_ptr<Subject> subject_;
  std::map<Credentials, std::unique_ptr<Calls>> callers_;
};

template <class T>
std::string value_of(const Outcome<T>& outcome) {
  if (!outcome) return posix::name_of(outcome);
  if constexpr (std::is_convertible_v<T, std::string>) {
    return *outcome;
  } else {
    return std::to_string(*outcome);
  }
}
// Names only, each followed by a blank.
std::string names_in(Calls& who, const std::string& path);
inline std::string permissions(const Outcome<Attributes>& outcome) {
  if (!outcome) return posix::name_of(outcome);
  char text[16];
  snprintf(text, sizeof text, "%o", outcome->mode & 07777);
  return text;
}

#define OK(call)                                      \
  do {                                                \
    EXPECT_EQ(::reprise::posix::name_of(call), "ok"); \
    expect_sound(#call);                              \
  } while (false)
#define FAILS(error, call)                              \
  do {                                                  \
    EXPECT_EQ(::reprise::posix::name_of(call), #error); \
    expect_sound(#call);                                \
  } while (false)
#define GIVES(value, call)                                    \
  do {                                                        \
    EXPECT_EQ(::reprise::conformance::value_of(call), value); \
    expect_sound(#call);                                      \
  } while (false)

#define CONFORMANCE_SUITE_OF(base, suite, oracle)                                       \
  class suite : public base {};                                                         \
  INSTANTIATE_TEST_SUITE_P(, suite, testing::ValuesIn(filesystems_for(#suite, oracle)), \
                           [](const auto& which) { return name_of(which.param); })
#define CONFORMANCE_SUITE_ON(suite, oracle) CONFORMANCE_SUITE_OF(Conformance, suite, oracle)
#define CONFORMANCE_SUITE(suite) CONFORMANCE_SUITE_ON(suite, Which::kTmpfs)

}  // namespace reprise::conformance
