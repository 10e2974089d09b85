// How a kernel describes itself: EMULATOR_KERNEL is appended to the program once per kernel found in its source.
#pragma once

namespace emulator {

template <int... I>
struct Indices {};

template <auto kernel>
struct Thunk;

template <class... Arguments, void (*kernel)(Arguments...)>
struct Thunk<kernel> {
  static constexpr unsigned count = sizeof...(Arguments);
  static constexpr unsigned long sizes[] = {sizeof(Arguments)..., 0};

  // Arguments lie wherever the launch put them; a parameter lies as its type wants.
  template <class Argument>
  static Argument read(const void *from) {
    Argument argument;
    memcpy(&argument, from, sizeof argument);
    return argument;
  }
  template <int... I>
  static void apply(void **arguments, Indices<I...>) {
    kernel(read<Arguments>(arguments[I])...);
  }
  static void call(void **arguments) { apply(arguments, Indices<__integer_pack(sizeof...(Arguments))...>()); }
};

// __launch_bounds__(threads, blocks per multiprocessor, …): only the first says what a launch may ask for.
constexpr unsigned max_threads() { return 1024; }
template <class... Rest>
constexpr unsigned max_threads(unsigned threads, Rest...) {
  return threads;
}

}  // namespace emulator

#define EMULATOR_KERNEL(name, bounds, cluster)                                                              \
  extern "C" __attribute__((visibility("default"))) const EmulatorKernel emulator_kernel_##name = {         \
      #name, emulator::Thunk<&name>::call, emulator::Thunk<&name>::count, emulator::Thunk<&name>::sizes,    \
      emulator::max_threads bounds, dim3 cluster};
