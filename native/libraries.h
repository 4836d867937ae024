// The thread pools that cannot run on the arena, found in the process: one row per kind of library.
//
// A row says how such a library is recognised (by the symbols it exports, in files whose name fits) and how its width
// is set. A new library is a new row. What exports nothing that a row knows is reported as unknown, never guessed.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace composable {

enum class Scope {
  process,  // one width for all threads
  thread,   // each calling thread has its own
};

/// One loaded library whose width can be set.
struct Library {
  std::string kind;    // "openblas", "openmp", "mkl"
  std::string path;    // without links and dots
  std::string loaded;  // the same file as the loader names it
  Scope scope;
  int (*get)() = nullptr;
  void (*set)(int) = nullptr;      // null where there is exchange
  int (*exchange)(int) = nullptr;  // MKL: sets the thread's own, returns the old one; 0 stands for "as the process"
  mutable std::atomic<int> imposed{0};  // see Libraries::impose(); 0: none
  mutable std::atomic<int> limits{0};   // of the user's, set outside tasks

  /// Whether its own width is nobody's wish: in tasks it is no bound.
  bool is_imposed(int own) const noexcept {
    return own == imposed.load(std::memory_order_relaxed) && limits.load(std::memory_order_relaxed) == 0;
  }
};

/// What looks like one of these kinds by its name but has no width that could be set.
struct OtherLibrary {
  std::string kind;
  std::string path;
  bool waits;  // MKL before its first call: it has no threading layer yet
};

/// The libraries loaded now. Entries are never moved or removed: pointers to them stay good for the process's life.
class Libraries {
 public:
  static Libraries& instance();

  /// Looks again if anything was loaded since the last look, else costs one short lock of the loader. True if it found
  /// a library to govern.
  bool refresh();
  /// The same, but leaves it to a thread that looks just now.
  bool refresh_unless_busy();
  const std::vector<const Library*>& process_wide() const noexcept {
    return *process_wide_.load(std::memory_order_acquire);
  }
  const std::vector<const Library*>& per_thread() const noexcept {
    return *per_thread_.load(std::memory_order_acquire);
  }
  /// Whether one is loaded that may run on oneTBB's workers, and would miss those that sleep here.
  bool uses_workers() const noexcept { return uses_workers_.load(std::memory_order_relaxed); }
  std::vector<OtherLibrary> others();
  /// Widths by kind that a launcher put into the environment, and not the user: libraries that have them, also those
  /// which are loaded later, may use their share in tasks. Replaces what was imposed before.
  void impose(std::map<std::string, int> widths);
  /// The kinds that can be governed.
  static std::vector<std::string> kinds();

 private:
  using List = std::vector<const Library*>;
  friend class Lifecycle;
  bool look();
  bool scan();
  void before_fork();
  void after_fork_in_parent();
  void after_fork_in_child();

  std::timed_mutex mutex_;  // held by whoever asks the loader; after the arena's lock where both are
  bool held_for_fork_ = false;
  unsigned long long seen_ = 0;  // the loader's count of loads at the last look
  std::atomic<const List*> process_wide_{new List};
  std::atomic<const List*> per_thread_{new List};
  std::atomic<bool> uses_workers_{false};
  std::vector<OtherLibrary> others_;
  std::map<std::string, int> imposed_;
};

}  // namespace composable
