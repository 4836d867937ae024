#include "libraries.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include <dlfcn.h>
#include <link.h>

namespace composable {
namespace {

struct Row {
  const char* kind;
  Scope scope;
  std::array<const char*, 4> file_names;  // how a file name begins
  std::array<const char*, 6> setters;     // the first one that is exported
  std::array<const char*, 6> getters;     // at the same place
  bool exchanges;                         // the setter returns the old width
  std::array<const char*, 4> needs;       // one of these files, too, before any function may be called
  const char* unless;                     // a file with which another row stands for this one
};

// Names differ between builds: SciPy's wheels prefix OpenBLAS's symbols and suffix those with 64-bit integers.
//
// libmkl_rt takes an interface and a threading layer, for good, at the first call of any function, and ends the process
// if it finds none. That call must be the program's own, which may want to choose first.
constexpr std::array kRows = {
    Row{"openblas",
        Scope::process,
        {"libopenblas", "libscipy_openblas"},
        {"scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads", "openblas_set_num_threads64_",
         "openblas_set_num_threads"},
        {"scipy_openblas_get_num_threads64_", "scipy_openblas_get_num_threads", "openblas_get_num_threads64_",
         "openblas_get_num_threads"},
        false,
        {},
        nullptr},
    Row{"openmp",
        Scope::thread,
        {"libgomp", "libiomp5", "libomp.", "libomp-"},
        {"omp_set_num_threads"},
        {"omp_get_max_threads"},
        false,
        {},
        nullptr},
    Row{"mkl",
        Scope::thread,
        {"libmkl_rt"},
        {"MKL_Set_Num_Threads_Local"},
        {"MKL_Get_Max_Threads"},
        true,
        {"libmkl_tbb_thread", "libmkl_intel_thread", "libmkl_gnu_thread", "libmkl_sequential"},
        nullptr},
    // Seen, so that they are not reported as absent.
    Row{"mkl", Scope::thread, {"libmkl_core"}, {}, {}, false, {}, "libmkl_rt"},
    Row{"blis", Scope::process, {"libblis"}, {}, {}, false, {}, nullptr},
    Row{"flexiblas", Scope::process, {"libflexiblas"}, {}, {}, false, {}, nullptr},
};

const char* base_name(const char* path) noexcept {
  const char* slash = std::strrchr(path, '/');
  return slash != nullptr ? slash + 1 : path;
}

int count_loads(dl_phdr_info* info, std::size_t, void* count) {
  *static_cast<unsigned long long*>(count) = info->dlpi_adds;
  return 1;  // the first object tells
}

bool is_named(const char* path, const char* begin) noexcept {
  return begin != nullptr && std::strncmp(base_name(path), begin, std::strlen(begin)) == 0;
}

bool is_named(const char* path, const std::array<const char*, 4>& begins) noexcept {
  return std::any_of(begins.begin(), begins.end(), [&](const char* begin) { return is_named(path, begin); });
}

template <typename Name>
bool one_is_named(const std::vector<std::string>& paths, const Name& name) noexcept {
  return std::any_of(paths.begin(), paths.end(), [&](const std::string& path) { return is_named(path.c_str(), name); });
}

const Row* row_of(const char* path) noexcept {
  const auto row =
      std::find_if(kRows.begin(), kRows.end(), [&](const Row& each) { return is_named(path, each.file_names); });
  return row != kRows.end() ? &*row : nullptr;
}

// Only paths that a row speaks of: a process has hundreds, and the look is often a worker's.
int collect_paths(dl_phdr_info* info, std::size_t, void* paths) {
  const char* path = info->dlpi_name;
  if (path == nullptr || *path == '\0') return 0;
  const bool spoken_of = row_of(path) != nullptr || std::any_of(kRows.begin(), kRows.end(), [&](const Row& row) {
                           return is_named(path, row.needs) || is_named(path, row.unless);
                         });
  if (spoken_of) static_cast<std::vector<std::string>*>(paths)->emplace_back(path);
  return 0;
}

std::string real_path(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(realpath(path.c_str(), nullptr), &std::free);
  return real != nullptr ? real.get() : path;
}

/// The function of that name in the library itself, not in one that it needs.
void* own_symbol(void* handle, const std::string& loaded, const char* name) noexcept {
  void* symbol = dlsym(handle, name);
  Dl_info where;
  if (symbol == nullptr || dladdr(symbol, &where) == 0 || loaded != where.dli_fname) return nullptr;
  return symbol;
}

/// Null if it exports nothing that the row knows.
std::unique_ptr<Library> open_library(const Row& row, const std::string& loaded) {
  void* handle = dlopen(loaded.c_str(), RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
  if (handle == nullptr) return nullptr;
  std::unique_ptr<Library> library;
  for (std::size_t i = 0; i < row.setters.size() && row.setters[i] != nullptr; ++i) {
    void* setter = own_symbol(handle, loaded, row.setters[i]);
    void* getter = own_symbol(handle, loaded, row.getters[i]);
    if (setter == nullptr || getter == nullptr) continue;
    library.reset(new Library{row.kind, real_path(loaded), loaded, row.scope});
    library->get = reinterpret_cast<int (*)()>(getter);
    if (row.exchanges) {
      library->exchange = reinterpret_cast<int (*)(int)>(setter);
    } else {
      library->set = reinterpret_cast<void (*)(int)>(setter);
    }
    break;
  }
  dlclose(handle);  // NODELETE keeps it, and our pointers into it, for good
  return library;
}

}  // namespace

Libraries& Libraries::instance() {
  static auto* libraries = new Libraries;
  return *libraries;
}

bool Libraries::refresh() {
  std::lock_guard lock(mutex_);
  return look();
}

bool Libraries::refresh_unless_busy() {
  std::unique_lock lock(mutex_, std::try_to_lock);
  return lock.owns_lock() && look();
}

bool Libraries::look() {
  unsigned long long loads = 0;
  dl_iterate_phdr(count_loads, &loads);
  if (loads == seen_) return false;
  const bool found = scan();
  seen_ = loads;
  return found;
}

// The loader does not make its lock anew in the child of a fork: a thread that was looking just then would leave it
// locked there for good. A thread that loads a library may fork in the middle of it, hence the limit.
void Libraries::before_fork() {
  constexpr auto kPatience = std::chrono::milliseconds(100);
  held_for_fork_ = mutex_.try_lock_for(kPatience);
}

void Libraries::after_fork_in_parent() {
  if (held_for_fork_) mutex_.unlock();
}

void Libraries::after_fork_in_child() { new (&mutex_) std::timed_mutex; }

bool Libraries::scan() {
  std::vector<std::string> paths;
  dl_iterate_phdr(collect_paths, &paths);
  auto process_wide = std::make_unique<List>(*process_wide_.load(std::memory_order_relaxed));
  auto per_thread = std::make_unique<List>(*per_thread_.load(std::memory_order_relaxed));
  bool more = false;
  others_.clear();
  for (const std::string& path : paths) {
    const Row* row = row_of(path.c_str());
    if (row == nullptr || one_is_named(paths, row->unless)) continue;
    if (std::string_view(row->kind) == "mkl") uses_workers_.store(true, std::memory_order_relaxed);
    List& list = row->scope == Scope::process ? *process_wide : *per_thread;
    if (std::any_of(list.begin(), list.end(), [&](const Library* known) { return known->loaded == path; })) continue;
    const bool complete = row->needs[0] == nullptr || one_is_named(paths, row->needs);
    std::unique_ptr<Library> library = complete ? open_library(*row, path) : nullptr;
    if (library == nullptr) {
      others_.push_back({row->kind, real_path(path), !complete});
      continue;
    }
    if (const auto width = imposed_.find(library->kind); width != imposed_.end())
      library->imposed.store(width->second, std::memory_order_relaxed);
    list.push_back(library.release());
    more = true;
  }
  if (!more) return false;
  // The old lists are leaked: a thread may be walking them.
  process_wide_.store(process_wide.release(), std::memory_order_release);
  per_thread_.store(per_thread.release(), std::memory_order_release);
  return true;
}

std::vector<OtherLibrary> Libraries::others() {
  std::lock_guard lock(mutex_);
  look();
  return others_;
}

void Libraries::impose(std::map<std::string, int> widths) {
  std::lock_guard lock(mutex_);
  imposed_ = std::move(widths);
  for (const List* list : {&process_wide(), &per_thread()}) {
    for (const Library* library : *list) {
      const auto width = imposed_.find(library->kind);
      library->imposed.store(width != imposed_.end() ? width->second : 0, std::memory_order_relaxed);
    }
  }
}

std::vector<std::string> Libraries::kinds() {
  std::vector<std::string> kinds;
  for (const Row& row : kRows) {
    if (row.setters[0] != nullptr) kinds.emplace_back(row.kind);
  }
  return kinds;
}

}  // namespace composable
