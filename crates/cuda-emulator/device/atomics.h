// Atomics. One thread runs at a time and is never interrupted, so a plain read and write is atomic. Whoever changes
// nothing may be spinning until another thread does (a lock, a counter), so the others get their turn then.
#pragma once

#define EMULATOR_ATOMIC(name, expression)                              \
  template <class T>                                                   \
  inline T name(T *address, emulator::Same<T> value) {                 \
    T old = *address;                                                  \
    *address = expression;                                             \
    emulator::yield_if_spinning(old, *address);                        \
    return old;                                                        \
  }                                                                    \
  template <class T>                                                   \
  inline T name##_block(T *address, emulator::Same<T> value) {         \
    return name(address, value);                                       \
  }                                                                    \
  template <class T>                                                   \
  inline T name##_system(T *address, emulator::Same<T> value) {        \
    return name(address, value);                                       \
  }

namespace emulator {
// The type of `T`, not deduced: atomicAdd(&float, 1) adds 1.0f, as CUDA's overloads do.
template <class T>
struct SameAs {
  using Type = T;
};
template <class T>
using Same = typename SameAs<T>::Type;

// Only whole numbers count and lock: adding 0.0 to a sum is no sign of waiting.
template <class T>
inline void yield_if_spinning(T before, T after) {
  constexpr bool whole = T(0.5f) == T(0);
  if (whole && before == after) emulator_yield();
}
}  // namespace emulator

EMULATOR_ATOMIC(atomicAdd, old + value)
EMULATOR_ATOMIC(atomicSub, old - value)
EMULATOR_ATOMIC(atomicExch, value)
EMULATOR_ATOMIC(atomicMax, old > value ? old : value)
EMULATOR_ATOMIC(atomicMin, old < value ? old : value)
EMULATOR_ATOMIC(atomicAnd, old & value)
EMULATOR_ATOMIC(atomicOr, old | value)
EMULATOR_ATOMIC(atomicXor, old ^ value)
EMULATOR_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
EMULATOR_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
#undef EMULATOR_ATOMIC

template <class T>
inline T atomicCAS(T *address, emulator::Same<T> expected, emulator::Same<T> value) {
  T old = *address;
  if (old == expected) *address = value;
  emulator::yield_if_spinning(old, *address);
  return old;
}
