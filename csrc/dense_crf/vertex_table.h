// Sets of lattice vertices, which number them in the order of their keys: bits where the keys are
// few, else hash tables.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "buffer.h"
#include "caught.h"

namespace c2am {

constexpr int kWord = 64;

// Each thread takes one of these parts of 0 .. n - 1, in their order.
inline int64_t part(int64_t n, int index, int parts) { return n * index / parts; }

// Of the words of a set: their vertices, and the number of the first of them.
struct Numbering {
  const uint64_t* members;
  const int32_t* first;
};

// Appends the keys of a word.
template <typename Key>
void append_keys(Key word, uint64_t members, std::vector<Key>& keys) {
  for (; members != 0; members &= members - 1) {
    keys.push_back(word * kWord + static_cast<Key>(__builtin_ctzll(members)));
  }
}

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

// A hash table for each thread.
template <typename Key>
class VertexTables {
 public:
  VertexTables(int64_t expected, int threads) {
    for (int t = 0; t < threads; ++t) tables_.emplace_back(expected / threads);
  }

  VertexTable<Key>& of(int thread) { return tables_[thread]; }

  // Appends all keys, of which none is above `last`, in order. False: there are too many.
  bool number(Key last, std::vector<Key>& keys) {
    int64_t count = 0;
    starts_.clear();
    for (const VertexTable<Key>& table : tables_) {
      if (table.words() > table.kMostWords) return false;
      starts_.push_back(count);
      count += table.words();
    }
    Buffer<Word<Key>> words(count);
    Word<Key>* to = words.data();
    for (const VertexTable<Key>& table : tables_) to = table.copy(to, to - words.data());
    sort_by_key(words, static_cast<Key>(last / kWord));
    members_ = Buffer<uint64_t>(count);
    first_ = Buffer<int32_t>(count);
    for (int64_t begin = 0, end; begin < count; begin = end) {
      uint64_t members = 0;  // several threads may have the word
      for (end = begin; end < count && words[end].key == words[begin].key; ++end) {
        members |= words[end].members;
      }
      for (int64_t i = begin; i < end; ++i) {
        members_[words[i].number] = members;
        first_[words[i].number] = static_cast<int32_t>(keys.size());
      }
      append_keys(words[begin].key, members, keys);
    }
    return true;
  }

  Numbering numbering(int thread) const {
    return {members_.data() + starts_[thread], first_.data() + starts_[thread]};
  }

 private:
  std::vector<VertexTable<Key>> tables_;
  std::vector<int64_t> starts_;  // of each thread's words among all
  Buffer<uint64_t> members_;
  Buffer<int32_t> first_;
};

// A bit for each key, for all threads.
class VertexBits {
 public:
  static constexpr uint64_t kMostKeys = uint64_t{1} << 28;
  static constexpr uint64_t kMostPerPoint = 1024;
  static constexpr int64_t kLine = 8;  // words

  VertexBits(int64_t keys, int threads)
      : members_((keys / kWord / kLine + 1) * kLine), first_(members_.size()), threads_(threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t word = 0; word < members_.size(); ++word) members_[word] = 0;
  }

  VertexBits& of(int) { return *this; }
  void prefetch(uint64_t vertex) const { __builtin_prefetch(&members_[vertex / kWord]); }

  // Not atomic, which would take longer: another thread that stores the same word at the same time
  // may undo it. Then the vertex is found to be missing at the end, and all are inserted again.
  uint32_t insert(uint64_t vertex) {
    uint64_t* word = &members_[vertex / kWord];
    const uint64_t bit = uint64_t{1} << vertex % kWord;
    __atomic_store_n(word, __atomic_load_n(word, __ATOMIC_RELAXED) | bit, __ATOMIC_RELAXED);
    return static_cast<uint32_t>(vertex);
  }

  template <typename Key>
  bool number(Key, std::vector<Key>& keys) {
    std::vector<std::vector<Key>> found(threads_);  // by each thread
    found[0].swap(keys);
    for (int t = 1; t < threads_; ++t) found[t].reserve(found[0].capacity() / threads_);
    Caught caught;
#pragma omp parallel for num_threads(threads_) schedule(static)
    for (int t = 0; t < threads_; ++t) {
      caught.run([&] {
        std::vector<Key> own = std::move(found[t]);  // whose end is in no other thread's cache line
        for (int64_t line = first_line(t); line < first_line(t + 1); line += kLine) {
          uint64_t any = 0;  // most have none
          for (int64_t word = line; word < line + kLine; ++word) any |= members_[word];
          for (int64_t word = line; any != 0 && word < line + kLine; ++word) {
            append_keys(static_cast<Key>(word), members_[word], own);
          }
        }
        found[t] = std::move(own);
      });
    }
    caught.rethrow();
    found[0].swap(keys);
    std::vector<int64_t> starts{1};
    for (int t = 0; t < threads_; ++t) {
      if (t > 0) keys.insert(keys.end(), found[t].begin(), found[t].end());
      starts.push_back(static_cast<int64_t>(keys.size()));
    }
#pragma omp parallel for num_threads(threads_) schedule(static)
    for (int t = 0; t < threads_; ++t) {  // downward: of a word's vertices the first one stays
      for (int64_t v = starts[t + 1] - 1; v >= starts[t]; --v) {
        first_[static_cast<int64_t>(keys[v] / kWord)] = static_cast<int32_t>(v);
      }
    }
    return true;
  }

  Numbering numbering(int) const { return {members_.data(), first_.data()}; }

 private:
  int64_t first_line(int thread) const {
    return part(members_.size() / kLine, thread, threads_) * kLine;
  }

  Buffer<uint64_t> members_;
  Buffer<int32_t> first_;
  int threads_;
};

}  // namespace c2am
