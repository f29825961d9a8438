// Tables of calls. A row is one call, by whom, and its answer: "ok" or an errno. All rows of a table are put
// to one standing tree, the House, which they must leave as it is, to the nanosecond; of what fails nothing
// is recorded.
//
//   TEST_P(ChmodErrors, AsLinux) {
//     expect({ROW(ENOENT, root, chmod("none", 0600)),
//             ROW(EBADF, root, fchmod(fd("file", O_PATH), 0600))});
//   }
//
// What stands in the house is at the top of table_test.cc. fd() opens for the row and closes behind it.
#pragma once

#include <initializer_list>
#include <set>
#include <utility>

#include "tests/conformance/conformance.h"

namespace reprise::conformance {

class House : public Conformance {
 public:
  struct Row {
    const char *answer, *text;
    int (*call)(House& house);  // 0 or an errno
  };
  // A call that takes a path, whichever.
  struct PathCall {
    const char* text;
    unsigned traits;
    int (*call)(Calls& who, const std::string& path);
  };
  using Member = Calls& (House::*)();

  using Conformance::alice;
  using Conformance::bob;
  using Conformance::carol;
  using Conformance::root;
  Calls& dave() { return as({1003, 2000, {}}); }  // of group 2000 first of all
  Calls& lost() { return as({0, 0, {1}}); }       // root, in a directory that has been removed

  // Of rows, in this run.
  static std::set<const posix::Waiver*>& waivers_used();

  int open_for_row(Calls& who, const char* path, int flags);

 protected:
  void SetUp() override;
  void TearDown() override;

  size_t rows_ = 0;  // that have been tried

  void expect(std::initializer_list<Row> rows) {
    for (const Row& row : rows) expect_answer(row.answer, row.text, row.call);
  }
  // The answer to all path_calls() that have these traits.
  void expect_of_path(const char* answer, Member who, const std::string& path, unsigned traits = 0);

 private:
  void build();
  void build_ways();

  void expect_answer(const std::string& answer, const std::string& text,
                     const std::function<int(House&)>& call);
  std::string state();  // of everything in the house

  std::vector<std::pair<Calls*, int>> opened_;
  std::string standing_;  // state() at the latest
};

// What is in a call's way besides its own errors.
enum Trait : unsigned {
  kNeeds = 1,    // the name must be there
  kFollows = 2,  // a symlink at the end is followed
  kMakes = 4,    // the name must not be there
  kNames = 8,    // the directory must be written
};
// Each call that takes a path, harmless where it succeeds in nothing.
const std::vector<House::PathCall>& path_calls();

// A string of so many bytes that is too long for a name, or a way to the directory "full" that is too long
// for a path.
std::string long_name();
std::string long_path();

// 0 or an errno.
template <class T>
int error_of(const Outcome<T>& outcome) {
  return outcome ? 0 : static_cast<int>(outcome.error());
}

// What makes a row's call. Its text is taken where the row is: macros in what is passed on are replaced.
#define CALL_OF_ROW(who, ...)                                     \
  [](House& house) -> int {                                       \
    Calls& caller = house.who();                                  \
    [[maybe_unused]] auto fd = [&](const char* path, int flags) { \
      return house.open_for_row(caller, path, flags);             \
    };                                                            \
    return error_of(caller.__VA_ARGS__);                          \
  }
#define ROW(answer, who, ...)                                     \
  House::Row {                                                    \
    #answer, #who "." #__VA_ARGS__, CALL_OF_ROW(who, __VA_ARGS__) \
  }

}  // namespace reprise::conformance
