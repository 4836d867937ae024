// Graphs for tests of the ordering, as rows of dependencies.
#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "array.h"
#include "order.h"

namespace composable::testing {

using Rows = Array<Array<std::int32_t>>;

struct Flat {
  explicit Flat(const Rows& rows) : is_task(rows.size(), 1) {
    for (const auto& row : rows) {
      targets.insert(targets.end(), row.begin(), row.end());
      offsets.push_back(static_cast<std::int32_t>(targets.size()));
    }
  }
  OrderGraph graph() const { return {offsets, targets, is_task}; }

  Array<std::int32_t> offsets{0}, targets;
  Array<std::uint8_t> is_task;
};

/// Seven digits, so that texts sort as numbers do. Counts who was asked for.
class Digits final : public KeyTexts {
 public:
  explicit Digits(std::size_t size) : texts_(size) {}
  std::string_view text(std::int32_t node) override {
    ++asked;
    std::string& text = texts_.at(static_cast<std::size_t>(node));
    repeated = repeated || !text.empty();
    text = std::to_string(10'000'000 + node);
    return text;
  }
  std::size_t asked = 0;
  bool repeated = false;

 private:
  Array<std::string> texts_;
};

/// `width` nodes that nothing links, then each layer a function of the one before.
inline Rows map_of(std::int32_t width, std::int32_t layers) {
  Rows rows(static_cast<std::size_t>(width));
  for (std::int32_t i = width; i < width * layers; ++i) rows.push_back({i - width});
  return rows;
}

inline Rows chain(std::int32_t length) { return map_of(1, length); }

/// Pairs summed until one is left.
inline Rows tree(std::int32_t width) {
  Rows rows(static_cast<std::size_t>(width));
  for (std::int32_t next = 0; next < 2 * (width - 1); next += 2) rows.push_back({next, next + 1});
  return rows;
}

/// Each diamond doubles what is depended on in all: one, two in the middle, one.
inline Rows diamonds(std::int32_t count) {
  Rows rows(1);
  for (std::int32_t i = 0; i < count; ++i) {
    const auto top = static_cast<std::int32_t>(rows.size()) - 1;
    rows.insert(rows.end(), {{top}, {top}, {top + 1, top + 2}});
  }
  return rows;
}

/// Any graph without a cycle: each node depends on up to three of the `window` before it.
inline Rows random_rows(std::mt19937& random, std::int32_t size, std::int32_t window) {
  Rows rows;
  for (std::int32_t i = 0; i < size; ++i) {
    Array<std::int32_t> row;
    for (auto left = random() % 4; left > 0 && i > 0; --left) {
      row.push_back(i - 1 - static_cast<std::int32_t>(random() % static_cast<unsigned>(std::min(i, window))));
    }
    rows.push_back(row);  // may name one twice
  }
  return rows;
}

}  // namespace composable::testing
