// Paths of nodes that may run one after the other, as Dask collects them on the way to a reducer.
//
// Dask copies a path for each branch of a splitter; here branches share their beginning, and what is done at the
// beginning of a path is walked over once. A path's length still counts it, for Dask compares lengths.
#pragma once

#include <cstdint>
#include <span>

#include "order_graph.h"

namespace composable::ordering {

/// A path is known by its last step.
using Path = std::int32_t;

class Paths {
 public:
  /// `done` has one entry for each node, not 0 for those that have their priority.
  explicit Paths(const Array<std::uint8_t>& done) : done_(done) {}

  Path begin(Node node) { return append(-1, node, 1); }
  Path extend(Path path, Node node) { return append(path, node, steps_[at(path)].length + 1); }
  Path join(std::span<const Path> paths);

  Node last(Path path) const noexcept { return steps_[at(path)].node; }
  std::int32_t length(Path path) const noexcept { return steps_[at(path)].length; }
  /// Of a path of two or more.
  bool last_but_one_done(Path path) const noexcept {
    const Step& step = steps_[at(path)];
    if (step.before < 0 || steps_[at(step.before)].length + 1 < step.length) return true;
    return done_[at(steps_[at(step.before)].node)] != 0;
  }

  /// What is to do of a path: the steps after those that are done, first one first. `skipped` of a step are done ones
  /// between it and the step before, or the beginning.
  struct Rest {
    Node node;
    std::int32_t skipped;
  };
  std::span<const Rest> rest(Path path);

 private:
  struct Step {
    Node node;
    Path before;          // -1 if none, or if all before it are done
    std::int32_t length;  // of the path up to here
    bool done;            // here and everything before
  };

  Path append(Path before, Node node, std::int32_t length) {
    steps_.push_back({node, before, length, false});
    return static_cast<Path>(steps_.size() - 1);
  }

  const Array<std::uint8_t>& done_;
  Array<Step> steps_;
  Array<Path> walk_;
  Array<Rest> rest_;
};

/// Paths that lead to reducers, kept until there are enough to run one.
class KnownPaths {
 public:
  explicit KnownPaths(Node size) : place_(at(size), -1) {}

  /// Also of a reducer whose paths were all thrown away.
  bool has(Node reducer) const noexcept { return place_[at(reducer)] >= 0; }
  Array<Path>& of(Node reducer) noexcept { return paths_[at(place_[at(reducer)])]; }
  Array<Path> take(Node reducer);
  void set(Node reducer, Array<Path> paths);

 private:
  Array<std::int32_t> place_;  // by node
  Array<Array<Path>> paths_;
  Array<std::int32_t> free_;  // places
};

/// The nodes that the walk will come to, last one first. A run of nodes that are done already is one entry: they are
/// passed over, but count, for Dask compares the length with that of others.
class CriticalPath {
 public:
  void push(Node node) {
    entries_.push_back(node);
    ++length_;
  }
  void push_done(std::int32_t count) {
    if (count == 0) return;
    entries_.push_back(-count);
    length_ += at(count);
  }
  /// False if there is none left.
  bool pop(Node& node) {
    while (!entries_.empty()) {
      const std::int32_t entry = entries_.back();
      entries_.pop_back();
      length_ -= entry < 0 ? at(-entry) : 1;
      if (entry < 0) continue;
      node = entry;
      return true;
    }
    return false;
  }
  std::size_t length() const noexcept { return length_; }

 private:
  Array<std::int32_t> entries_;
  std::size_t length_ = 0;
};

}  // namespace composable::ordering
