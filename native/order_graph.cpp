#include "order_graph.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace composable::ordering {
namespace {

// A set of nodes that iterates in order of insertion.
class NodeSet {
 public:
  explicit NodeSet(Node size) : member_(at(size), 0) {}
  bool has(Node node) const noexcept { return member_[at(node)] != 0; }
  void add(Node node) {
    if (has(node)) return;
    member_[at(node)] = 1;
    nodes_.push_back(node);
  }
  void remove(Node node) noexcept { member_[at(node)] = 0; }
  /// Forgets what was removed. A node that was removed is never added again.
  const Array<Node>& nodes() {
    std::erase_if(nodes_, [this](Node node) { return !has(node); });
    return nodes_;
  }

 private:
  Array<std::uint8_t> member_;
  Array<Node> nodes_;
};

}  // namespace

Links::Links(std::span<const std::int32_t> lengths) : rows_(lengths.size()) {
  std::uint32_t begin = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    rows_[i] = {begin, 0};
    begin += static_cast<std::uint32_t>(lengths[i]);
  }
  nodes_.resize(begin);
}

void Links::append(Node row, Node node) {
  Row& into = rows_[at(row)];
  Node* end = nodes_.data() + into.begin + into.size;
  if (into.size > 0 && end[-1] == node) return;
  *end = node;
  ++into.size;
}

Graph::Graph(const OrderGraph& source, Array<std::int64_t>& priorities) {
  link(source);
  priorities.assign(at(size), -1);
  for (Node node = 0; node < size; ++node) {
    if (dependencies.size(node) == 0) roots.push_back(node);
    if (dependents.size(node) == 0) leaves.push_back(node);
  }
  const bool only_tasks =
      size == inner && std::find(source.is_task.begin(), source.is_task.end(), 0) == source.is_task.end();
  const std::size_t left = only_tasks ? at(size) : remove_data_and_aliases(source, priorities);
  postorder = depth_first(dependencies, leaves, size);
  if (postorder.size() != left) throw CycleError();  // one that no leaf depends on
}

void Graph::link(const OrderGraph& source) {
  constexpr std::size_t kMost = std::numeric_limits<Node>::max();
  if (source.offsets.size() != source.is_task.size() + 1 || source.offsets.size() > kMost) {
    throw std::invalid_argument("offsets must have one entry more than is_task");
  }
  if (source.offsets.front() != 0 || at(source.offsets.back()) != source.targets.size() ||
      !std::is_sorted(source.offsets.begin(), source.offsets.end())) {
    throw std::invalid_argument("offsets must ascend from 0 to the number of targets");
  }
  inner = static_cast<Node>(source.is_task.size());
  size = inner;
  for (Node target : source.targets) {
    if (target < 0 || at(target) >= kMost) throw std::invalid_argument("targets must be numbers of nodes");
    size = std::max(size, target + 1);
  }
  // An external key is named by somebody, so their numbers cannot outrun the edges.
  if (at(size - inner) > source.targets.size()) {
    throw std::invalid_argument("numbers of external keys must follow one another");
  }

  // Transposed twice, the rows come out sorted.
  Array<std::int32_t> lengths(at(size), 0);
  for (Node target : source.targets) ++lengths[at(target)];
  dependents = Links(lengths);
  for (Node node = 0; node < inner; ++node) {
    const auto begin = at(source.offsets[at(node)]);
    const auto end = at(source.offsets[at(node) + 1]);
    for (std::size_t i = begin; i < end; ++i) dependents.append(source.targets[i], node);
    lengths[at(node)] = static_cast<std::int32_t>(end - begin);
  }
  std::fill(lengths.begin() + inner, lengths.end(), 0);
  dependencies = Links(lengths);
  for (Node node = 0; node < size; ++node) {
    for (Node dependent : dependents[node]) dependencies.append(dependent, node);
  }
}

std::size_t Graph::remove_data_and_aliases(const OrderGraph& source, Array<std::int64_t>& priorities) {
  Array<std::uint8_t> gone(at(size), 0);
  Array<std::size_t> deps(at(size)), users(at(size));  // those left
  for (Node node = 0; node < size; ++node) {
    deps[at(node)] = dependencies.size(node);
    users[at(node)] = dependents.size(node);
  }
  NodeSet root_set(size), leaf_set(size);
  for (Node root : roots) root_set.add(root);
  for (Node leaf : leaves) leaf_set.add(leaf);
  const auto is_task = [&](Node node) { return node < inner && source.is_task[at(node)] != 0; };
  Array<std::pair<Node, Node>> taken;  // user, data
  auto left = static_cast<std::int64_t>(size);
  std::int64_t removed_leaves = 0;

  for (bool again = true; again;) {
    again = false;
    for (Node leaf : Array<Node>(leaf_set.nodes())) {
      if (root_set.has(leaf) || is_task(leaf) || deps[at(leaf)] <= 1) continue;
      again = true;
      // Not what was meant, for both numbers count what was removed before; but it is Dask's.
      priorities[at(leaf)] = left - 1 - removed_leaves++;
      --left;
      gone[at(leaf)] = 1;
      leaf_set.remove(leaf);
      for (Node dep : dependencies[leaf]) {
        if (!gone[at(dep)] && --users[at(dep)] == 0) leaf_set.add(dep);
      }
    }
    for (Node root : Array<Node>(root_set.nodes())) {
      if (leaf_set.has(root) || is_task(root) || users[at(root)] <= 1) continue;
      --left;
      gone[at(root)] = 1;
      root_set.remove(root);
      for (Node user : dependents[root]) {
        if (gone[at(user)]) continue;
        taken.emplace_back(user, root);
        if (--deps[at(user)] == 0) root_set.add(user);
      }
    }
  }

  roots = root_set.nodes();
  leaves = leaf_set.nodes();
  if (left == size) return at(size);
  const auto stays = [&gone](Node node) { return gone[at(node)] == 0; };
  const auto none = [](Node) { return false; };
  for (Node node = 0; node < size; ++node) {
    if (gone[at(node)]) {
      dependencies.filter(node, none);
      dependents.filter(node, none);
    } else {
      if (deps[at(node)] != dependencies.size(node)) dependencies.filter(node, stays);
      if (users[at(node)] != dependents.size(node)) dependents.filter(node, stays);
    }
  }
  has_data = !taken.empty();
  if (!has_data) return static_cast<std::size_t>(left);
  Array<std::int32_t> lengths(at(size), 0);
  for (const auto& [user, root] : taken) ++lengths[at(user)];
  data = Links(lengths);
  for (const auto& [user, root] : taken) data.append(user, root);
  return static_cast<std::size_t>(left);
}

Array<Node> depth_first(const Links& links, std::span<const Node> starts, Node size) {
  enum : std::uint8_t { kNew, kOpen, kDone };
  Array<std::uint8_t> state(at(size), kNew);
  struct Step {
    Node node;
    std::uint32_t next;
  };
  Array<Step> path;
  Array<Node> finished;
  finished.reserve(at(size));
  for (Node start : starts) {
    if (state[at(start)] != kNew) continue;
    state[at(start)] = kOpen;
    path.push_back({start, 0});
    while (!path.empty()) {
      Step& step = path.back();
      const std::span<const Node> row = links[step.node];
      if (step.next == row.size()) {
        state[at(step.node)] = kDone;
        finished.push_back(step.node);
        path.pop_back();
        continue;
      }
      const Node next = row[step.next++];
      if (state[at(next)] == kDone) continue;
      if (state[at(next)] == kOpen) throw CycleError();
      state[at(next)] = kOpen;
      path.push_back({next, 0});
    }
  }
  return finished;
}

}  // namespace composable::ordering
