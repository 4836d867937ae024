// When the nodes of a graph run and when their values are released: dependency counters and a stack, nothing else.
//
// The policy is Dask's (dask/local.py), so that peak memory is Dask's: ready nodes are a stack; the nodes that a
// finished one makes ready are pushed so that the one of the lowest priority number is taken first; a value is released
// when the last node that uses it has finished. Nobody runs ahead: a node is taken when a thread is there to run it.
//
// State, under one mutex that is held for counting only:
//   remaining_  per node, dependencies that have not finished
//   users_      per node, dependents that have not finished; the value is released at 0 unless it is wanted
//   ready_      nodes all of whose dependencies have finished, a stack
//   unfinished_ needed nodes that have not finished; 0: the graph is complete
//   stopped_    nothing is taken any more: an error, or the caller has gone
#pragma once

#include <cstdint>
#include <mutex>
#include <span>

#include "array.h"

namespace composable {

class Graph {
 public:
  using Node = std::int32_t;

  /// A list of nodes for every node, one after the other.
  struct Lists {
    Array<std::int32_t> offsets{0};  // where each begins, and where the last ends
    Array<Node> nodes;
    const Node* begin(Node of) const noexcept { return nodes.data() + offsets[static_cast<std::size_t>(of)]; }
    const Node* end(Node of) const noexcept { return nodes.data() + offsets[static_cast<std::size_t>(of) + 1]; }
    Node size() const noexcept { return static_cast<Node>(offsets.size()) - 1; }
    void close() { offsets.push_back(static_cast<std::int32_t>(nodes.size())); }
  };

  /// What a node is before anything ran.
  enum class Kind : std::uint8_t {
    task,     // to be run
    data,     // has its value already
    missing,  // somebody depends on it, nobody has it
  };

  /// `dependencies` and `kinds` name every node; Low `priorities` run first. Only what `wanted` needs is
  /// run. See missing() and accessible() for graphs that cannot run.
  Graph(Lists dependencies, Array<Kind> kinds, const Array<std::int64_t>& priorities, const Array<Node>& wanted);

  /// A missing node that is needed by another one, or -1.
  Node missing() const noexcept { return missing_; }
  /// False if something is to be run and nothing can: a cycle.
  bool accessible() const noexcept { return unfinished_ == 0 || !ready_.empty(); }

  const Lists& dependencies() const noexcept { return dependencies_; }
  /// Nodes ready now.
  int ready();
  /// The node to run now, or -1; and in `coming` those that would follow if none became ready meanwhile, or -1.
  Node take(std::span<Node> coming = {});
  /// What came of a node that has its value.
  struct Outcome {
    int ready = 0;         // so many nodes became ready
    Node nearly = -1;      // one that waits for a single other node now
    Array<Node> released;  // nobody needs their values any more
  };
  /// `node` has its value. After stop(): does nothing.
  Outcome finish(Node node);
  /// False if it was stopped before.
  bool stop();
  bool stopped();
  bool complete();

 private:
  void find_needed(const Array<Node>& wanted);

  const Lists dependencies_;
  const Array<Kind> kinds_;
  Lists dependents_;  // needed ones, those of low priority numbers last
  Array<bool> needed_;
  Array<bool> wanted_;
  Node missing_ = -1;

  std::mutex mutex_;
  Array<std::int32_t> remaining_;
  Array<std::int32_t> users_;
  Array<Node> ready_;
  Node unfinished_ = 0;
  bool stopped_ = false;
};

}  // namespace composable
