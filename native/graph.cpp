#include "graph.h"

#include <algorithm>
#include <numeric>

namespace composable {
namespace {

// Nodes from the highest priority number to the lowest. The numbers are mostly places in an order, each given once:
// then nothing has to be sorted.
Array<Graph::Node> falling_order(const Array<std::int64_t>& priorities) {
  const std::size_t count = priorities.size();
  Array<Graph::Node> falling(count, -1);
  for (std::size_t node = 0; node < count; ++node) {
    const std::int64_t priority = priorities[node];
    if (priority < 0 || static_cast<std::size_t>(priority) >= count) break;
    falling[count - 1 - static_cast<std::size_t>(priority)] = static_cast<Graph::Node>(node);
  }
  if (std::find(falling.begin(), falling.end(), -1) == falling.end()) return falling;
  std::iota(falling.begin(), falling.end(), 0);
  std::stable_sort(falling.begin(), falling.end(), [&](Graph::Node a, Graph::Node b) {
    return priorities[static_cast<std::size_t>(a)] > priorities[static_cast<std::size_t>(b)];
  });
  return falling;
}

}  // namespace

Graph::Graph(Lists dependencies, Array<Kind> kinds, const Array<std::int64_t>& priorities, const Array<Node>& wanted)
    : dependencies_(std::move(dependencies)),
      kinds_(std::move(kinds)),
      needed_(kinds_.size(), false),
      wanted_(kinds_.size(), false),
      remaining_(kinds_.size(), 0),
      users_(kinds_.size(), 0) {
  find_needed(wanted);
  const auto index = [](Node node) { return static_cast<std::size_t>(node); };

  // Visited from the highest priority number down, so that every list of dependents comes out in that order.
  const Array<Node> falling = falling_order(priorities);
  for (Node node : falling) {
    if (!needed_[index(node)] || kinds_[index(node)] != Kind::task) continue;
    ++unfinished_;
    for (const Node* dependency = dependencies_.begin(node); dependency != dependencies_.end(node); ++dependency) {
      ++users_[index(*dependency)];
      if (kinds_[index(*dependency)] == Kind::task) ++remaining_[index(node)];
    }
    if (remaining_[index(node)] == 0) ready_.push_back(node);
  }
  Array<std::int32_t> place(kinds_.size() + 1, 0);
  std::partial_sum(users_.begin(), users_.end(), place.begin() + 1);
  dependents_.offsets = place;
  dependents_.nodes.resize(index(place.back()));
  for (Node node : falling) {
    if (!needed_[index(node)] || kinds_[index(node)] != Kind::task) continue;
    for (const Node* dependency = dependencies_.begin(node); dependency != dependencies_.end(node); ++dependency) {
      dependents_.nodes[index(place[index(*dependency)]++)] = node;
    }
  }
}

void Graph::find_needed(const Array<Node>& wanted) {
  Array<Node> stack;
  const auto need = [&](Node node) {
    if (needed_[static_cast<std::size_t>(node)]) return;
    needed_[static_cast<std::size_t>(node)] = true;
    stack.push_back(node);
  };
  for (Node node : wanted) {
    wanted_[static_cast<std::size_t>(node)] = true;
    need(node);
  }
  while (!stack.empty()) {
    const Node node = stack.back();
    stack.pop_back();
    for (const Node* dependency = dependencies_.begin(node); dependency != dependencies_.end(node); ++dependency) {
      if (kinds_[static_cast<std::size_t>(*dependency)] == Kind::missing && missing_ < 0) missing_ = *dependency;
      need(*dependency);
    }
  }
}

int Graph::ready() {
  std::lock_guard lock(mutex_);
  return static_cast<int>(ready_.size());
}

Graph::Node Graph::take(std::span<Node> coming) {
  std::lock_guard lock(mutex_);
  std::fill(coming.begin(), coming.end(), -1);
  if (stopped_ || ready_.empty()) return -1;
  const Node node = ready_.back();
  ready_.pop_back();
  const std::size_t count = std::min(coming.size(), ready_.size());
  std::copy_n(ready_.rbegin(), count, coming.begin());
  return node;
}

Graph::Outcome Graph::finish(Node node) {
  Outcome outcome;
  std::lock_guard lock(mutex_);
  if (stopped_) return outcome;
  for (const Node* dependent = dependents_.begin(node); dependent != dependents_.end(node); ++dependent) {
    const std::int32_t left = --remaining_[static_cast<std::size_t>(*dependent)];
    if (left == 1) outcome.nearly = *dependent;
    if (left > 0) continue;
    ready_.push_back(*dependent);
    ++outcome.ready;
  }
  for (const Node* dependency = dependencies_.begin(node); dependency != dependencies_.end(node); ++dependency) {
    const auto at = static_cast<std::size_t>(*dependency);
    if (--users_[at] == 0 && !wanted_[at]) outcome.released.push_back(*dependency);
  }
  --unfinished_;
  return outcome;
}

bool Graph::stop() {
  std::lock_guard lock(mutex_);
  if (stopped_) return false;
  stopped_ = true;
  ready_.clear();
  return true;
}

bool Graph::stopped() {
  std::lock_guard lock(mutex_);
  return stopped_;
}

bool Graph::complete() {
  std::lock_guard lock(mutex_);
  return unfinished_ == 0;
}

}  // namespace composable
