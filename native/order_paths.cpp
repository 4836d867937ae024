#include "order_paths.h"

#include <utility>

namespace composable::ordering {

std::span<const Paths::Rest> Paths::rest(Path path) {
  walk_.clear();
  for (Path step = path; step >= 0 && !steps_[at(step)].done; step = steps_[at(step)].before) walk_.push_back(step);
  rest_.clear();
  std::int32_t counted = 0;
  for (auto next = walk_.rbegin(); next != walk_.rend(); ++next) {
    Step& step = steps_[at(*next)];
    step.done = rest_.empty() && done_[at(step.node)] != 0;
    if (step.done) continue;
    rest_.push_back({step.node, step.length - 1 - counted});
    counted = step.length;
  }
  return rest_;
}

Path Paths::join(std::span<const Path> paths) {
  Path joined = -1;
  std::int32_t length = 0;
  for (Path path : paths) {
    for (const Rest& step : rest(path)) {
      length += step.skipped + 1;
      joined = append(joined, step.node, length);
    }
  }
  return joined;
}

Array<Path> KnownPaths::take(Node reducer) {
  Array<Path> paths = std::move(of(reducer));
  free_.push_back(std::exchange(place_[at(reducer)], -1));
  return paths;
}

void KnownPaths::set(Node reducer, Array<Path> paths) {
  if (free_.empty()) {
    free_.push_back(static_cast<std::int32_t>(paths_.size()));
    paths_.emplace_back();
  }
  place_[at(reducer)] = free_.back();
  free_.pop_back();
  of(reducer) = std::move(paths);
}

}  // namespace composable::ordering
