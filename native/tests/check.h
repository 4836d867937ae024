// The whole test framework of the core: TEST registers a function, CHECK counts, run_all() reports.
//
// A failed CHECK does not end its test, and may happen on any thread. A test that lets an exception out has failed.
#pragma once

#include <atomic>
#include <cstdio>
#include <exception>
#include <vector>

namespace composable::testing {

struct Test {
  const char* name;
  void (*run)();
  const char* file;
  int line;
};

inline std::vector<Test>& tests() {
  static std::vector<Test> registered;
  return registered;
}

inline std::atomic<int> failed_checks{0};

inline void fail(const char* where, int line, const char* what, const char* detail) {
  failed_checks.fetch_add(1, std::memory_order_relaxed);
  std::fprintf(stderr, "%s:%d: %s: %s\n", where, line, what, detail);
}

inline bool check(bool holds, const char* expression, const char* file, int line) {
  if (!holds) fail(file, line, "failed", expression);
  return holds;
}

/// Runs every TEST of the program in order of definition; the result is for main() to return.
inline int run_all() {
  int failed = 0;
  for (const Test& test : tests()) {
    const int before = failed_checks.load(std::memory_order_relaxed);
    try {
      test.run();
    } catch (const std::exception& error) {
      fail(test.file, test.line, "exception", error.what());
    } catch (...) {
      fail(test.file, test.line, "exception", "not a std::exception");
    }
    if (failed_checks.load(std::memory_order_relaxed) == before) continue;
    ++failed;
    std::fprintf(stderr, "FAILED %s\n", test.name);
  }
  std::fflush(stderr);
  std::printf("%d passed, %d failed\n", static_cast<int>(tests().size()) - failed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace composable::testing

/// True if it holds, for checks that later ones depend on: `if (!CHECK(found)) return;`.
#define CHECK(...) ::composable::testing::check(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

#define TEST(name)                                                                          \
  static void name();                                                                       \
  [[maybe_unused]] static const bool name##_registered =                                    \
      (::composable::testing::tests().push_back({#name, &name, __FILE__, __LINE__}), true); \
  static void name()
