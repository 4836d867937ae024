#include "libraries.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include <dlfcn.h>
#include <link.h>

namespace composable {
namespace {

struct Row {
  const char* kind;
  Scope scope;
  std::array<const char*, 4> file_names;  // parts of a file name
  std::array<const char*, 6> setters;     // the first one that is exported
  std::array<const char*, 6> getters;     // at the same place
  bool exchanges;                         // the setter returns the old width
};

// Names differ between builds: SciPy's wheels prefix OpenBLAS's symbols and suffix those with 64-bit integers.
constexpr std::array kRows = {
    Row{"openblas",
        Scope::process,
        {"openblas"},
        {"scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads", "openblas_set_num_threads64_",
         "openblas_set_num_threads"},
        {"scipy_openblas_get_num_threads64_", "scipy_openblas_get_num_threads", "openblas_get_num_threads64_",
         "openblas_get_num_threads"},
        false},
    Row{"openmp", Scope::thread, {"libgomp", "libiomp", "libomp"}, {"omp_set_num_threads"}, {"omp_get_max_threads"}, false},
    Row{"mkl", Scope::thread, {"libmkl_rt"}, {"MKL_Set_Num_Threads_Local"}, {}, true},
};

const char* base_name(const char* path) noexcept {
  const char* slash = std::strrchr(path, '/');
  return slash != nullptr ? slash + 1 : path;
}

int count_loads(dl_phdr_info* info, std::size_t, void* count) {
  *static_cast<unsigned long long*>(count) = info->dlpi_adds;
  return 1;  // the first object tells
}

int collect_paths(dl_phdr_info* info, std::size_t, void* paths) {
  if (info->dlpi_name != nullptr && *info->dlpi_name != '\0') {
    static_cast<std::vector<std::string>*>(paths)->emplace_back(info->dlpi_name);
  }
  return 0;
}

const Row* row_of(const std::string& path) {
  for (const Row& row : kRows) {
    for (const char* part : row.file_names) {
      if (part != nullptr && std::strstr(base_name(path.c_str()), part) != nullptr) return &row;
    }
  }
  return nullptr;
}

}  // namespace

Libraries& Libraries::instance() {
  static auto* libraries = new Libraries;
  return *libraries;
}

bool Libraries::refresh() {
  unsigned long long loads = 0;
  dl_iterate_phdr(count_loads, &loads);
  if (loads == seen_.load(std::memory_order_relaxed)) return false;
  std::lock_guard lock(mutex_);
  if (loads == seen_.load(std::memory_order_relaxed)) return false;
  const bool found = scan();
  seen_.store(loads, std::memory_order_relaxed);
  return found;
}

bool Libraries::scan() {
  std::vector<std::string> paths;
  dl_iterate_phdr(collect_paths, &paths);
  auto* process_wide = new List(*process_wide_.load(std::memory_order_relaxed));
  auto* per_thread = new List(*per_thread_.load(std::memory_order_relaxed));
  bool more = false;
  unknown_.clear();
  for (const std::string& path : paths) {
    const Row* row = row_of(path);
    if (row == nullptr) continue;
    List& list = row->scope == Scope::process ? *process_wide : *per_thread;
    if (std::any_of(list.begin(), list.end(), [&](const Library* known) { return known->path == path; })) continue;
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
    auto* library = new Library{row->kind, path, row->scope};
    for (std::size_t i = 0; handle != nullptr && i < row->setters.size() && row->setters[i] != nullptr; ++i) {
      void* setter = dlsym(handle, row->setters[i]);
      void* getter = row->exchanges ? nullptr : dlsym(handle, row->getters[i]);
      if (setter == nullptr || (getter == nullptr && !row->exchanges)) continue;
      if (row->exchanges) {
        library->exchange = reinterpret_cast<int (*)(int)>(setter);
      } else {
        library->set = reinterpret_cast<void (*)(int)>(setter);
        library->get = reinterpret_cast<int (*)()>(getter);
      }
      break;
    }
    if (handle != nullptr) dlclose(handle);  // NODELETE keeps it, and our pointers into it, for good
    if (library->set == nullptr && library->exchange == nullptr) {
      unknown_.push_back({row->kind, path});
      delete library;
      continue;
    }
    list.push_back(library);
    more = true;
  }
  if (!more) {
    delete process_wide;
    delete per_thread;
    return false;
  }
  // The old lists are leaked: a thread may be walking them.
  process_wide_.store(process_wide, std::memory_order_release);
  per_thread_.store(per_thread, std::memory_order_release);
  return true;
}

std::vector<UnknownLibrary> Libraries::unknown() {
  refresh();
  std::lock_guard lock(mutex_);
  return unknown_;
}

}  // namespace composable
