// Sets of lattice vertices by key: a hash table that numbers them, and sorting.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "buffer.h"

namespace c2am {

constexpr int kWord = 64;

// Vertices with neighbouring keys: on photographs about a quarter as many as vertices.
template <typename Key>
struct Word {
  Key key;           // theirs / kWord
  int32_t number;    // from 0
  uint64_t members;  // bit i stands for the vertex with the key kWord * key + i
};

// Words numbered in the order of their insertion. Open addressing, at most half full.
template <typename Key>
class VertexTable {
 public:
  static constexpr int64_t kMostWords = (int64_t{1} << 32) / kWord;

  explicit VertexTable(int64_t expected) {
    while ((int64_t{1} << bits_) < 2 * expected) ++bits_;
    slots_ = Buffer<Word<Key>>(int64_t{1} << bits_, kFree);
  }

  // Brings the slot for a vertex into the cache for a later `insert`.
  void prefetch(Key vertex) const { __builtin_prefetch(&slots_[home(vertex / kWord)]); }

  // Returns kWord * the word's number + the bit of the vertex, if there are no more than
  // kMostWords.
  uint32_t insert(Key vertex) {
    const Key key = vertex / kWord;
    const auto bit = static_cast<uint32_t>(vertex % kWord);
    Word<Key>* word = &slot_of(key);
    if (word->number < 0) {
      if (2 * words_ >= slots_.size()) {
        grow();
        word = &slot_of(key);
      }
      *word = {key, static_cast<int32_t>(words_++), 0};
    }
    word->members |= uint64_t{1} << bit;
    return static_cast<uint32_t>(word->number) * kWord + bit;
  }

  int64_t words() const { return words_; }

  // Copies all words, in no order, with `offset` added to their numbers; returns the end of them.
  Word<Key>* copy(Word<Key>* to, int64_t offset) const {
    for (const auto& [key, number, members] : slots_) {
      if (number >= 0) *to++ = {key, static_cast<int32_t>(number + offset), members};
    }
    return to;
  }

 private:
  static constexpr Word<Key> kFree{0, -1, 0};

  int64_t home(Key key) const {
    auto mixed = static_cast<uint64_t>(key);
    if constexpr (sizeof(Key) > 8) mixed ^= static_cast<uint64_t>(key >> 64) * 0xD6E8FEB86659FD93u;
    return static_cast<int64_t>((mixed * 0x9E3779B97F4A7C15u) >> (64 - bits_));
  }

  // The slot that holds the word, or the free one in which it belongs.
  Word<Key>& slot_of(Key key) {
    int64_t i = home(key);
    while (slots_[i].number >= 0 && slots_[i].key != key) i = (i + 1) & (slots_.size() - 1);
    return slots_[i];
  }

  void grow() {
    const Buffer<Word<Key>> before = std::move(slots_);
    ++bits_;
    slots_ = Buffer<Word<Key>>(2 * before.size(), kFree);
    for (const Word<Key>& word : before) {
      if (word.number >= 0) slot_of(word.key) = word;
    }
  }

  Buffer<Word<Key>> slots_;
  int bits_ = 10;
  int64_t words_ = 0;
};

// Sorts by key, none of which is above `last`: radix sort, from the least significant digit.
template <typename Key>
void sort_by_key(Buffer<Word<Key>>& words, Key last) {
  constexpr int kDigit = 11;
  Buffer<Word<Key>> sorted(words.size());
  for (int shift = 0; shift < static_cast<int>(8 * sizeof(Key)) && (last >> shift) != 0;
       shift += kDigit) {
    const auto digit = [shift](const Word<Key>& word) {
      return static_cast<size_t>(word.key >> shift) & ((1 << kDigit) - 1);
    };
    std::array<int32_t, 1 << kDigit> place{};
    for (const Word<Key>& word : words) ++place[digit(word)];
    int32_t sum = 0;
    for (int32_t& p : place) sum += p, p = sum - p;
    for (const Word<Key>& word : words) sorted[place[digit(word)]++] = word;
    std::swap(words, sorted);
  }
}

}  // namespace c2am
