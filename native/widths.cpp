#include "widths.h"

#include <algorithm>

#include "ticks.h"

namespace composable {
namespace {

// libgomp ends threads when a team shrinks to a size above one and starts them again when it grows: 56 us between 2
// and 4, 524 us between 2 and 8 threads, under 1 us between 1 and one other size. So a thread changes its other size
// only this rarely.
constexpr double kChangeUs = 50'000;

// Asking the loader costs several times a short task's whole overhead; so soon after a load few calls are made.
constexpr double kLookAgainUs = 200;

std::uint64_t bit(int width) noexcept { return width >= 0 && width < 64 ? std::uint64_t{1} << width : 0; }

// A width of `share` or less for an OpenMP region of this thread: 1 or its one other size.
int steady(ThreadState& self, int share) noexcept {
  if (share <= 1 || share == self.openmp_size) return share;
  const std::uint64_t now = ticks();
  if (self.openmp_size == 0 || static_cast<double>(now - self.openmp_changed) > kChangeUs * ticks_per_us()) {
    self.openmp_size = share;
    self.openmp_changed = now;
    return share;
  }
  return self.openmp_size < share ? self.openmp_size : 1;
}

}  // namespace

Widths::Governed& Widths::find(std::vector<Governed>& list, const Library& library) {
  const auto known = std::find_if(list.begin(), list.end(),
                                  [&](const Governed& item) { return item.library == &library; });
  if (known != list.end()) return *known;
  const int own = library.get();
  return list.emplace_back(Governed{&library, own, own, 0});
}

void Widths::govern(int load) {
  if (load == 0) {
    if (!on_) return;
    for (const Governed& item : governed_) {
      const int now = item.library->get();
      if (now != item.own && (now == item.last || (item.ours & bit(now)) != 0)) item.library->set(item.own);
    }
    governed_.clear();
    on_ = false;
    return;
  }
  on_ = true;
  for (const Library* library : Libraries::instance().process_wide()) {
    Governed& item = find(governed_, *library);
    if (library->get() != item.last) continue;  // somebody else's, until put back
    int width = std::min(share(load), item.own);
    if (!limits_.empty()) width = std::min(width, limits_.begin()->first);
    if (width == item.last) continue;
    library->set(width);
    item.last = width;
    item.ours |= bit(width);
  }
}

void Widths::limit(int count, int change) {
  int& tasks = limits_[count];
  tasks += change;
  if (tasks <= 0) limits_.erase(count);
}

void Widths::cap(bool on) {
  Libraries& libraries = Libraries::instance();
  if (!on) {
    for (const Governed& item : capped_) {
      if (item.last == item.own) continue;
      if (item.library->get() == item.last) item.library->set(item.own);
    }
    capped_.clear();
    return;
  }
  libraries.refresh();
  for (const auto* list : {&libraries.process_wide(), &libraries.per_thread()}) {
    for (const Library* library : *list) {
      if (library->get == nullptr) continue;  // MKL sees quotas itself
      Governed& item = find(capped_, *library);
      if (item.last > slots_) {
        library->set(slots_);
        item.last = slots_;
      }
    }
  }
}

bool look_for_libraries(ThreadState& self) {
  const std::uint64_t now = ticks();
  if (static_cast<double>(now - self.libraries_seen) < kLookAgainUs * ticks_per_us()) return false;
  self.libraries_seen = now;
  return Libraries::instance().refresh();
}

WidthScope::WidthScope(ThreadState& self, int share) {
  for (const Library* library : Libraries::instance().per_thread()) {
    if (count_ == kMost) break;
    if (library->exchange != nullptr) {
      saved_[count_++] = {library, library->exchange(share)};
      // The task's creator may have given this thread a narrower width of its own.
      if (const int own = saved_[count_ - 1].own; own > 0 && own < share) library->exchange(own);
      continue;
    }
    const int own = library->get();
    const int width = std::min(steady(self, share), own);
    if (width == own) continue;
    library->set(width);
    saved_[count_++] = {library, own};
  }
}

WidthScope::~WidthScope() {
  while (count_ > 0) {
    const Saved& saved = saved_[--count_];
    if (saved.library->exchange != nullptr) {
      saved.library->exchange(saved.own);
    } else {
      saved.library->set(saved.own);
    }
  }
}

}  // namespace composable
