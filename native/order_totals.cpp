// total_dependencies(): in machine words as long as these hold the sums, then in as many as it takes.
#include <algorithm>

#include "order_keys.h"

namespace composable::ordering {
namespace {

// The sums end to end, least word first, no leading zeros.
class LongSums {
 public:
  explicit LongSums(Node size) : begin_(at(size), 0), size_(at(size), 0) {}

  void set_sum(Node node, std::span<const Node> terms) {
    sum_.assign(1, 1);
    for (Node term : terms) add(words(term));
    begin_[at(node)] = words_.size();
    size_[at(node)] = sum_.size();
    words_.insert(words_.end(), sum_.begin(), sum_.end());
  }

  bool less(Node a, Node b) const noexcept {
    const auto x = words(a), y = words(b);
    if (x.size() != y.size()) return x.size() < y.size();
    return std::lexicographical_compare(x.rbegin(), x.rend(), y.rbegin(), y.rend());
  }

 private:
  std::span<const std::uint64_t> words(Node node) const noexcept {
    return {words_.data() + begin_[at(node)], size_[at(node)]};
  }

  void add(std::span<const std::uint64_t> term) {
    if (sum_.size() < term.size()) sum_.resize(term.size(), 0);
    bool carry = false;
    for (std::size_t i = 0; i < sum_.size(); ++i) {
      if (i >= term.size() && !carry) return;
      const bool one = __builtin_add_overflow(sum_[i], i < term.size() ? term[i] : 0, &sum_[i]);
      const bool two = __builtin_add_overflow(sum_[i], static_cast<std::uint64_t>(carry), &sum_[i]);
      carry = one || two;
    }
    if (carry) sum_.push_back(1);
  }

  Array<std::size_t> begin_, size_;
  Array<std::uint64_t> words_, sum_;
};

Array<std::uint64_t> ranks_of_long_sums(const Graph& graph) {
  LongSums sums(graph.size);
  for (Node node : graph.postorder) sums.set_sum(node, graph.dependencies[node]);
  Array<Node> ascending = graph.postorder;
  std::sort(ascending.begin(), ascending.end(), [&](Node a, Node b) { return sums.less(a, b); });
  Array<std::uint64_t> ranks(at(graph.size), 0);
  for (std::size_t i = 1; i < ascending.size(); ++i) {
    const bool larger = sums.less(ascending[i - 1], ascending[i]);
    ranks[at(ascending[i])] = ranks[at(ascending[i - 1])] + (larger ? 1 : 0);
  }
  return ranks;
}

}  // namespace

Array<std::uint64_t> total_dependencies(const Graph& graph) {
  Array<std::uint64_t> totals(at(graph.size), 0);
  bool overflow = false;
  for (Node node : graph.postorder) {
    std::uint64_t total = 1;
    for (Node dep : graph.dependencies[node]) overflow |= __builtin_add_overflow(total, totals[at(dep)], &total);
    totals[at(node)] = total;
  }
  return overflow ? ranks_of_long_sums(graph) : totals;
}

}  // namespace composable::ordering
