#include "widths.h"

#include <algorithm>

#include "ticks.h"
#include "trace.h"

namespace composable {
namespace {

// libgomp ends threads when a team shrinks to a size above one and starts them again when it grows: 56 us between 2
// and 4, 524 us between 2 and 8 threads, under 1 us between 1 and one other size. So a thread changes its other size
// only this rarely.
constexpr double kChangeUs = 50'000;

// Asking the loader costs several times a short task's whole overhead; so soon after a load few calls are made.
constexpr double kLookAgainUs = 200;

std::uint64_t bit(int width) noexcept { return width >= 0 && width < 64 ? std::uint64_t{1} << width : 0; }

// Sets the calling thread's, or the process's, width; returns what puts it back.
int exchange(const Library& library, int own, int width) noexcept {
  if (library.exchange != nullptr) return library.exchange(width);
  library.set(width);
  return own;
}

void put_back(const Library& library, int saved) noexcept {
  if (library.exchange != nullptr) {
    library.exchange(saved);
  } else {
    library.set(saved);
  }
}

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

void note(const Library& library, int width) noexcept {
  trace::mark(this_thread(), trace::Kind::width, reinterpret_cast<std::uintptr_t>(&library),
              static_cast<std::uint32_t>(width));
}

void erase_one(std::vector<int>& values, int value) noexcept {
  const auto place = std::find(values.begin(), values.end(), value);
  if (place != values.end()) values.erase(place);
}

}  // namespace

// --- libraries with one width per process ------------------------------------------------------------------------

Widths::Governed* Widths::governed(const Library& library) noexcept {
  const auto known =
      std::find_if(governed_.begin(), governed_.end(), [&](const Governed& item) { return item.library == &library; });
  return known != governed_.end() ? &*known : nullptr;
}

Widths::Governed& Widths::find(const Library& library) {
  if (Governed* known = governed(library)) return *known;
  if (capping_) cap_process(library);
  const int own = library.get();
  return governed_.emplace_back(Governed{&library, own, own});
}

int Widths::wanted(const Governed& item, int load) const {
  if (!item.wishes.empty()) return *std::min_element(item.wishes.begin(), item.wishes.end());
  int width = item.library->is_imposed(item.own) ? share(load) : std::min(share(load), item.own);
  if (!limits_.empty()) width = std::min(width, limits_.begin()->first);
  for (const int ceiling : item.ceilings) width = std::min(width, ceiling);
  return width;
}

void Widths::govern(int load) {
  if (load == 0) {
    if (!on_) return;
    for (const Governed& item : governed_) {
      if (!item.wishes.empty()) continue;  // outlives its task, as it would without us
      const int now = item.library->get();
      if (now != item.own && (now == item.last || (item.ours & bit(now)) != 0)) {
        item.library->set(item.own);
        note(*item.library, item.own);
      }
    }
    governed_.clear();
    ++epoch_;
    on_ = false;
    return;
  }
  on_ = true;
  for (const Library* library : Libraries::instance().process_wide()) {
    Governed& item = find(*library);
    if (library->get() != item.last) continue;  // somebody else's, until put back
    const int width = wanted(item, load);
    if (width == item.last) continue;
    library->set(width);
    note(*library, width);
    item.last = width;
    item.ours |= bit(width);
  }
}

void Widths::limit(int count, int change) {
  int& tasks = limits_[count];
  tasks += change;
  if (tasks <= 0) limits_.erase(count);
}

// --- limits of the user's ----------------------------------------------------------------------------------------

UserLimits::UserLimits(Widths& widths) : epoch_(widths.epoch_), governed_(widths.on_) {
  for (const Library* library : Libraries::instance().process_wide()) {
    const Widths::Governed* item = widths.governed(*library);
    entries_.push_back({library, item != nullptr ? item->own : library->get()});
  }
}

void UserLimits::begin(Widths& widths, const std::map<std::string, int>& counts, bool in_task) {
  in_task_ = in_task;
  for (Entry& entry : entries_) {
    entry.outside = !in_task && counts.count(entry.library->path) > 0;
    if (entry.outside) entry.library->limits.fetch_add(1, std::memory_order_relaxed);
  }
  if (!governed_ || epoch_ != widths.epoch_) return;  // set while no task was there: the user's own width
  for (Entry& entry : entries_) {
    Widths::Governed* item = widths.governed(*entry.library);
    const auto count = counts.find(entry.library->path);
    if (item == nullptr || count == counts.end() || count->second < 1) continue;
    entry.count = count->second;
    (in_task ? item->wishes : item->ceilings).push_back(entry.count);
    item->last = entry.library->get();
  }
}

void UserLimits::end(Widths& widths) {
  for (const Entry& entry : entries_) {
    if (entry.outside) entry.library->limits.fetch_sub(1, std::memory_order_relaxed);
    Widths::Governed* item = widths.governed(*entry.library);
    if (item != nullptr) {
      if (governed_ && epoch_ == widths.epoch_) {
        if (entry.count > 0) erase_one(in_task_ ? item->wishes : item->ceilings, entry.count);
      } else {
        item->own = entry.own;
      }
      item->last = entry.library->get();
    } else if (governed_ && entry.library->get() != entry.own) {
      entry.library->set(entry.own);  // what it put back was a share of ours
    }
  }
  entries_.clear();
}

// --- containers --------------------------------------------------------------------------------------------------

void Widths::cap_process(const Library& library) {
  for (const CappedWidth& known : capped_) {
    if (known.library == &library) return;
  }
  Governed* item = governed(library);
  const int own = item != nullptr ? item->own : library.get();
  if (own <= slots_) return;
  capped_.push_back({&library, own});
  if (item != nullptr) {
    item->own = slots_;
  } else {
    library.set(slots_);
  }
}

void Widths::cap_thread(ThreadState& self) const {
  for (const Library* library : Libraries::instance().per_thread()) {
    const auto known = std::find_if(self.capped.begin(), self.capped.end(),
                                    [&](const CappedWidth& width) { return width.library == library; });
    if (known != self.capped.end()) continue;
    const int own = library->get();
    if (own > slots_) self.capped.push_back({library, exchange(*library, own, slots_)});
  }
}

void Widths::cap(bool on, ThreadState& self) {
  capping_ = on;
  if (on) {
    Libraries::instance().refresh();
    for (const Library* library : Libraries::instance().process_wide()) cap_process(*library);
    cap_thread(self);
    return;
  }
  for (const CappedWidth& width : capped_) {
    Governed* item = governed(*width.library);
    if (item != nullptr && item->own == slots_) item->own = width.own;
    if (item == nullptr && width.library->get() == slots_) width.library->set(width.own);
  }
  capped_.clear();
  for (const CappedWidth& width : self.capped) {
    if (width.library->get() == slots_) put_back(*width.library, width.own);
  }
  self.capped.clear();
}

// --- libraries with a width per thread ---------------------------------------------------------------------------

bool look_for_libraries(ThreadState& self) {
  const std::uint64_t now = ticks();
  if (static_cast<double>(now - self.libraries_seen) < kLookAgainUs * ticks_per_us()) return false;
  self.libraries_seen = now;
  return Libraries::instance().refresh_unless_busy();
}

WidthScope::WidthScope(ThreadState& self, int share) {
  for (const Library* library : Libraries::instance().per_thread()) {
    if (count_ == kMost) break;
    const int own = library->get();
    // Only OpenMP runtimes keep teams.
    const int wish = library->exchange != nullptr ? share : steady(self, share);
    const int width = library->is_imposed(own) ? wish : std::min(wish, own);
    if (width != own) saved_[count_++] = {library, exchange(*library, own, width)};
  }
}

WidthScope::~WidthScope() {
  while (count_ > 0) {
    const Saved& saved = saved_[--count_];
    put_back(*saved.library, saved.own);
  }
}

}  // namespace composable
