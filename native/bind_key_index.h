// Which number a key has: a dict from keys to 0, 1, 2, ... that holds neither keys nor numbers as objects. With the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <bit>
#include <cstdint>
#include <utility>

#include "array.h"
#include "bind_slot.h"

namespace composable {

class KeyIndex {
 public:
  using Number = std::int32_t;
  using Hash = std::uint32_t;

  /// Numbers `keys` by their places; no two of them are equal. Keys may be added to the vector, see add_last(). Throws
  /// what their `__hash__` raises.
  explicit KeyIndex(const Array<py::object>& keys) : keys_(keys), table_(std::bit_ceil(2 * keys.size() + 2)) {
    hash_all(
        keys.size(), [&](std::size_t at) { return keys[at].ptr(); },
        [this](std::size_t at, Hash hash) { insert(hash, static_cast<Number>(at)); });
  }

  /// The numbers of `count` keys, key(0), key(1), ... to found(at, hash, number): -1 if there is none. Throws what
  /// their `__hash__` and `__eq__` raise.
  template <typename Key, typename Found>
  void find_all(std::size_t count, const Key& key, const Found& found) const {
    hash_all(count, key, [&](std::size_t at, Hash hash) { found(at, hash, find(key(at), hash)); });
  }

  Number find(PyObject* key) const { return find(key, hash_of(key)); }

  /// Numbers the last of the keys, which was not among them before.
  void add_last(Hash hash) {
    if (2 * keys_.size() > table_.size()) {
      Array<Entry> old(4 * table_.size());
      std::swap(table_, old);
      for (const Entry& entry : old) {
        if (entry.number >= 0) insert(entry.hash, entry.number);
      }
    }
    insert(hash, static_cast<Number>(keys_.size()) - 1);
  }

 private:
  struct Entry {
    Hash hash = 0;
    Number number = -1;
  };

  // The upper half of Python's hash after every bit of it has reached there.
  static Hash hash_of(PyObject* key) {
    const Py_hash_t hash = PyObject_Hash(key);
    if (hash == -1) throw py::error_already_set();
    return static_cast<Hash>((static_cast<std::uint64_t>(hash) * 0x9e3779b97f4a7c15) >> 32);
  }

  // Keys of large graphs are in no cache: each is asked for two steps before it is hashed, its place in the table one
  // step before it is looked at.
  template <typename Key, typename Hashed>
  void hash_all(std::size_t count, const Key& key, const Hashed& hashed) const {
    constexpr std::size_t kAhead = 8;
    Hash hashes[kAhead];
    for (std::size_t step = 0; step < count + 3 * kAhead; ++step) {
      if (step < count) prefetch_object(key(step));
      if (const std::size_t at = step - kAhead; step >= kAhead && at < count) prefetch_items(key(at));
      if (const std::size_t at = step - 3 * kAhead; step >= 3 * kAhead) hashed(at, hashes[at % kAhead]);
      if (const std::size_t at = step - 2 * kAhead; step >= 2 * kAhead && at < count) {
        hashes[at % kAhead] = hash_of(key(at));
        __builtin_prefetch(&table_[start(hashes[at % kAhead])]);
      }
    }
  }

  std::size_t start(Hash hash) const noexcept { return hash >> (32 - std::countr_zero(table_.size())); }
  std::size_t next(std::size_t place) const noexcept { return (place + 1) & (table_.size() - 1); }

  void insert(Hash hash, Number number) noexcept {
    std::size_t place = start(hash);
    while (table_[place].number >= 0) place = next(place);
    table_[place] = {hash, number};
  }

  Number find(PyObject* key, Hash hash) const {
    for (std::size_t place = start(hash); table_[place].number >= 0; place = next(place)) {
      if (table_[place].hash != hash) continue;
      PyObject* known = keys_[static_cast<std::size_t>(table_[place].number)].ptr();
      const int same = PyObject_RichCompareBool(known, key, Py_EQ);
      if (same < 0) throw py::error_already_set();
      if (same > 0) return table_[place].number;
    }
    return -1;
  }

  const Array<py::object>& keys_;
  Array<Entry> table_;
};

}  // namespace composable
