// Barriers and the collective operations of a warp. Each collective is a struct that a thread brings: `value` in,
// `result` out, and `complete`, which sees the parts of all threads at once.
#pragma once

inline void __syncthreads(EMULATOR_HERE) { emulator_barrier(0, 0, 0, "__syncthreads", file, line); }
inline int __syncthreads_count(int vote, EMULATOR_HERE) {
  return emulator_barrier(0, 0, vote, "__syncthreads_count", file, line).count;
}
inline int __syncthreads_or(int vote, EMULATOR_HERE) {
  return emulator_barrier(0, 0, vote, "__syncthreads_or", file, line).any;
}
inline int __syncthreads_and(int vote, EMULATOR_HERE) {
  return emulator_barrier(0, 0, vote, "__syncthreads_and", file, line).all;
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) { emulator_yield(); }
inline unsigned __activemask() { return emulator_active_lanes(); }

namespace emulator {

// Brings `part` to the collective that its type describes.
template <class Part>
inline void collect(unsigned mask, Part &part, const char *file, int line) {
  static constexpr EmulatorCollective operation = {Part::name, [](void **parts, unsigned lanes) {
    Part *typed[32];
    for (unsigned lane = 0; lane < 32; lane++) typed[lane] = static_cast<Part *>(parts[lane]);
    Part::complete(typed, lanes);
  }};
  emulator_warp(mask, &operation, &part, file, line);
}

// Calls `body` with each lane that is in `lanes`, in order.
template <class Body>
inline void for_each_lane(unsigned lanes, Body body) {
  for (; lanes; lanes &= lanes - 1) body(unsigned(__builtin_ctz(lanes)));
}

struct Sync {
  static constexpr const char *name = "__syncwarp";
  static void complete(Sync **, unsigned) {}
};

// `source` is the lane to read from. A lane that brought nothing has no defined value: all bits are set.
template <class T>
struct Shuffle {
  static constexpr const char *name = "__shfl_sync";
  T value;
  unsigned source;
  T result;
  static void complete(Shuffle **parts, unsigned lanes) {
    for_each_lane(lanes, [&](unsigned lane) {
      unsigned source = parts[lane]->source;
      if (lanes >> source & 1)
        parts[lane]->result = parts[source]->value;
      else
        memset(&parts[lane]->result, 0xFF, sizeof(T));
    });
  }
};

template <class T>
inline T shuffle(unsigned mask, T value, unsigned source, const char *file, int line) {
  Shuffle<T> part{value, source, {}};
  collect(mask, part, file, line);
  return part.result;
}

struct Vote {
  static constexpr const char *name = "a vote (__ballot_sync, __any_sync, __all_sync)";
  bool value;
  unsigned ballot, lanes;
  static void complete(Vote **parts, unsigned lanes) {
    unsigned ballot = 0;
    for_each_lane(lanes, [&](unsigned lane) { ballot |= unsigned(parts[lane]->value) << lane; });
    for_each_lane(lanes, [&](unsigned lane) { parts[lane]->ballot = ballot, parts[lane]->lanes = lanes; });
  }
};

template <class T>
struct Match {
  static constexpr const char *name = "__match_any_sync";
  T value;
  unsigned result;
  static void complete(Match **parts, unsigned lanes) {
    for_each_lane(lanes, [&](unsigned lane) {
      parts[lane]->result = 0;
      for_each_lane(lanes, [&](unsigned other) {
        parts[lane]->result |= unsigned(parts[other]->value == parts[lane]->value) << other;
      });
    });
  }
};

template <class T>
struct Reduce {
  static constexpr const char *name = "__reduce_sync";
  T value;
  T (*combine)(T, T);
  static void complete(Reduce **parts, unsigned lanes) {
    Reduce total = *parts[__builtin_ctz(lanes)];
    for_each_lane(lanes & (lanes - 1), [&](unsigned lane) {
      total.value = total.combine(total.value, parts[lane]->value);
    });
    for_each_lane(lanes, [&](unsigned lane) { parts[lane]->value = total.value; });
  }
};

template <class T>
inline T reduce(unsigned mask, T value, T (*combine)(T, T), const char *file, int line) {
  Reduce<T> part{value, combine};
  collect(mask, part, file, line);
  return part.value;
}

inline Vote vote(unsigned mask, int value, const char *file, int line) {
  Vote part{value != 0, 0, 0};
  collect(mask, part, file, line);
  return part;
}

}  // namespace emulator

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, EMULATOR_HERE) {
  emulator::Sync part;
  emulator::collect(mask, part, file, line);
}

// Lanes are grouped in segments of `width`; a source outside the segment is the lane itself.
template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATOR_HERE) {
  unsigned segment = emulator_lane() & ~unsigned(width - 1);
  return emulator::shuffle(mask, value, segment | (unsigned(source) & unsigned(width - 1)), file, line);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EMULATOR_HERE) {
  unsigned lane = emulator_lane(), source = lane ^ unsigned(lanes);
  unsigned segment_end = (lane & ~unsigned(width - 1)) + unsigned(width);
  return emulator::shuffle(mask, value, source < segment_end ? source : lane, file, line);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_HERE) {
  unsigned lane = emulator_lane();
  bool inside = (lane & unsigned(width - 1)) >= delta;
  return emulator::shuffle(mask, value, inside ? lane - delta : lane, file, line);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_HERE) {
  unsigned lane = emulator_lane();
  bool inside = (lane & unsigned(width - 1)) + delta < unsigned(width);
  return emulator::shuffle(mask, value, inside ? lane + delta : lane, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int value, EMULATOR_HERE) {
  return emulator::vote(mask, value, file, line).ballot;
}
inline int __any_sync(unsigned mask, int value, EMULATOR_HERE) {
  return emulator::vote(mask, value, file, line).ballot != 0;
}
inline int __all_sync(unsigned mask, int value, EMULATOR_HERE) {
  emulator::Vote part = emulator::vote(mask, value, file, line);
  return part.ballot == part.lanes;
}
template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, EMULATOR_HERE) {
  emulator::Match<T> part{value, 0};
  emulator::collect(mask, part, file, line);
  return part.result;
}

// The hardware's integer reductions (sm_80).
#define EMULATOR_REDUCE(name, type, expression)                                            \
  inline type name(unsigned mask, type value, EMULATOR_HERE) {                             \
    auto combine = [](type a, type b) -> type { return expression; };                      \
    return emulator::reduce<type>(mask, value, combine, file, line);                       \
  }
EMULATOR_REDUCE(__reduce_add_sync, unsigned, a + b)
EMULATOR_REDUCE(__reduce_add_sync, int, a + b)
EMULATOR_REDUCE(__reduce_min_sync, unsigned, a < b ? a : b)
EMULATOR_REDUCE(__reduce_min_sync, int, a < b ? a : b)
EMULATOR_REDUCE(__reduce_max_sync, unsigned, a > b ? a : b)
EMULATOR_REDUCE(__reduce_max_sync, int, a > b ? a : b)
EMULATOR_REDUCE(__reduce_and_sync, unsigned, a & b)
EMULATOR_REDUCE(__reduce_or_sync, unsigned, a | b)
EMULATOR_REDUCE(__reduce_xor_sync, unsigned, a ^ b)
#undef EMULATOR_REDUCE
