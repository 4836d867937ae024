// The walk through the graph. dask/order.py tells the strategy and is the reference for every condition here; names are
// its names where it has some.
#include "order.h"

#include <algorithm>
#include <utility>

#include "order_graph.h"
#include "order_keys.h"
#include "order_paths.h"
#include "order_targets.h"

namespace composable {
namespace ordering {
namespace {

class Ordering {
 public:
  Ordering(const OrderGraph& source, KeyTexts& texts);
  Array<std::int64_t> run();

 private:
  void add(Node node);
  void add_data(Node node);
  void add_path(Path path);
  void process_runnables();
  void follow(Node start);
  void arrive(Path path, int splits);
  void walk_to(Node target);

  bool done(Node node) const noexcept { return done_[at(node)] != 0; }

  Array<std::int64_t> priorities_;  // of external keys too, until the end
  const Graph graph_;
  SortKeys keys_;

  std::int64_t next_priority_ = 0;
  std::size_t left_;
  Array<std::uint8_t> done_;           // has its priority
  Array<std::int32_t> num_needed_;     // dependencies not done
  Array<std::uint8_t> runnable_hull_;  // can be reached without doing further roots
  std::size_t reachable_hull_ = 0;     // nodes touched: not done, one of their dependencies is
  Array<Node> runnable_, candidates_, ready_;

  Paths paths_{done_};
  KnownPaths known_;
  struct Branch {
    int splits;
    Path path;
  };
  Array<Branch> branches_;

  CriticalPath critical_path_;
  Targets targets_;
};

Ordering::Ordering(const OrderGraph& source, KeyTexts& texts)
    : graph_(source, priorities_),
      keys_(graph_, texts),
      left_(graph_.postorder.size()),
      done_(at(graph_.size), 0),
      num_needed_(at(graph_.size)),
      runnable_hull_(at(graph_.size), 0),
      known_(graph_.size),
      targets_(graph_, keys_, done_) {
  for (Node node = 0; node < graph_.size; ++node) {
    num_needed_[at(node)] = static_cast<std::int32_t>(graph_.dependencies.size(node));
  }
}

Array<std::int64_t> Ordering::run() {
  while (left_ > 0) walk_to(targets_.next(reachable_hull_ > 0));
  priorities_.resize(at(graph_.inner));
  // Data that only removed leaves depend on, where Dask ends with an IndexError.
  for (std::int64_t& priority : priorities_) {
    if (priority < 0) priority = next_priority_++;
  }
  return std::move(priorities_);
}

// add_to_result: the node, and what it alone was missing for.
void Ordering::add(Node node) {
  ready_.push_back(node);
  while (!ready_.empty()) {
    const Node item = ready_.back();
    ready_.pop_back();
    if (done(item)) continue;
    if (graph_.has_data) add_data(item);
    done_[at(item)] = 1;
    --left_;
    priorities_[at(item)] = next_priority_;
    if (item < graph_.inner) ++next_priority_;
    const std::span<const Node> users = graph_.dependents[item];
    if (graph_.dependencies.size(item) > 0) {
      --reachable_hull_;
    } else if (!users.empty()) {
      targets_.root_done(item);
    }
    for (Node user : users) {
      std::int32_t& needed = num_needed_[at(user)];
      if (at(needed) == graph_.dependencies.size(user)) {
        ++reachable_hull_;
        if (graph_.dependents.size(user) == 0) targets_.leaf_touched(user);
      }
      if (--needed == 0) (users.size() == 1 ? ready_ : runnable_).push_back(user);
    }
  }
}

// The data that was taken out for this node, and before it the data that was taken out for that.
void Ordering::add_data(Node node) {
  if (graph_.data.size(node) == 0) return;
  struct Step {
    Node node;
    std::size_t next;
  };
  Array<Step> path{{node, 0}};
  while (!path.empty()) {
    Step& step = path.back();
    const std::span<const Node> row = graph_.data[step.node];
    if (step.next < row.size()) {
      const Node datum = row[step.next++];
      if (!done(datum)) path.push_back({datum, 0});
      continue;
    }
    const Node datum = step.node;
    path.pop_back();
    if (path.empty()) return;  // the node itself
    done_[at(datum)] = 1;
    priorities_[at(datum)] = next_priority_;
    if (datum < graph_.inner) ++next_priority_;
  }
}

void Ordering::add_path(Path path) {
  for (const Paths::Rest& step : paths_.rest(path)) add(step.node);
}

void Ordering::process_runnables() {
  while (!runnable_.empty()) {
    std::swap(candidates_, runnable_);
    while (!candidates_.empty()) {
      const Node node = candidates_.back();
      candidates_.pop_back();
      if (runnable_hull_[at(node)] || done(node)) continue;
      if (graph_.dependents.size(node) == 0) {
        add(node);
      } else {
        follow(node);
      }
    }
  }
}

// From a runnable node to the next reducers or leaves, through splitters along each branch.
void Ordering::follow(Node start) {
  branches_.assign(1, {0, paths_.begin(start)});
  Array<Node> split;
  for (std::size_t next = 0; next < branches_.size(); ++next) {
    auto [splits, path] = branches_[next];
    for (;;) {
      const Node current = paths_.last(path);
      const std::span<const Node> downstream = graph_.dependents[current];
      runnable_hull_[at(current)] = 1;
      if (downstream.empty()) {
        if (num_needed_[at(current)] <= 1) {
          add_path(path);
        } else {
          runnable_hull_[at(current)] = 0;
        }
      } else if (paths_.length(path) == 1 || graph_.dependencies.size(current) == 1) {
        if (downstream.size() == 1) {
          path = paths_.extend(path, downstream[0]);
          continue;
        }
        split.clear();
        for (Node node : downstream) {
          if (graph_.dependencies.size(node) == 1) split.push_back(node);
        }
        keys_.sort(split);
        for (Node node : split) branches_.push_back({splits + 1, paths_.extend(path, node)});
      } else if (known_.has(current)) {
        arrive(path, splits);
      } else if (num_needed_[at(current)] <= 1) {
        add_path(path);
      } else {
        known_.set(current, {path});
        runnable_hull_[at(current)] = 0;
      }
      break;
    }
  }
}

// One more path to a reducer: with enough of them it can be run.
void Ordering::arrive(Path path, int splits) {
  const Node reducer = paths_.last(path);
  const std::size_t needed = at(num_needed_[at(reducer)]);
  runnable_hull_[at(reducer)] = 0;
  Array<Path>& paths = known_.of(reducer);
  paths.push_back(path);
  if (paths.size() < needed) return;
  Array<Path> waiting = known_.take(reducer);
  std::erase_if(waiting, [this](Path each) { return paths_.last_but_one_done(each); });
  if (waiting.size() < needed) {
    known_.set(reducer, std::move(waiting));
    return;
  }
  if (splits > 1) {
    if (!waiting.empty()) branches_.push_back({splits - 1, paths_.join(waiting)});
    return;
  }
  std::size_t in_vain = 0;
  for (std::size_t next = 0; next < waiting.size() && in_vain <= waiting.size() - next; ++next) {
    const std::size_t left_before = left_;
    for (const Paths::Rest& step : paths_.rest(waiting[next])) {
      if (num_needed_[at(step.node)] > 0) {
        waiting.push_back(waiting[next]);
        break;
      }
      add(step.node);
    }
    in_vain = left_ == left_before ? in_vain + 1 : 0;
  }
}

void Ordering::walk_to(Node target) {
  // A. Build the critical path
  const auto not_done = [this](Node node, Array<Node>& into) {
    into.clear();
    for (Node dep : graph_.dependencies[node]) {
      if (!done(dep)) into.push_back(dep);
    }
  };
  critical_path_.push(target);
  const std::span<const Node> first = graph_.dependencies[target];
  Array<Node> deps;
  if (!first.empty()) deps.push_back(keys_.largest(first));  // even if it is done
  while (!deps.empty()) {
    const Node item = deps.back();
    critical_path_.push(item);
    not_done(item, deps);
    keys_.sort(deps);
    for (Node dep : deps) critical_path_.push(dep);
  }

  // B. Walk the critical path
  bool walked_back = false;
  Array<Node> known_deps;
  for (Node item; critical_path_.pop(item);) {
    if (done(item)) continue;
    if (num_needed_[at(item)] == 0) {
      if (walked_back && runnable_.size() < critical_path_.length()) process_runnables();
      add(item);
      continue;
    }
    critical_path_.push(item);
    not_done(item, deps);
    keys_.sort(deps);
    known_deps.clear();
    std::size_t unknown = 0;
    for (Node dep : deps) {
      if (known_.has(dep)) {
        known_deps.push_back(dep);
      } else {
        critical_path_.push(dep);
        ++unknown;
      }
    }
    walked_back = walked_back || unknown > 1;
    for (Node dep : known_deps) {
      for (Path path : known_.take(dep)) {
        const std::span<const Paths::Rest> rest = paths_.rest(path);
        for (auto step = rest.rbegin(); step != rest.rend(); ++step) {
          critical_path_.push(step->node);
          critical_path_.push_done(step->skipped);
        }
      }
    }
  }
  process_runnables();
}

}  // namespace
}  // namespace ordering

Array<std::int64_t> order(const OrderGraph& graph, KeyTexts& texts) {
  if (graph.offsets.size() <= 1 && graph.is_task.empty() && graph.targets.empty()) return {};
  return ordering::Ordering(graph, texts).run();
}

}  // namespace composable
