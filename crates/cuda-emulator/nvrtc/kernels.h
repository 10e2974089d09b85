// Finds the kernels of a program in its preprocessed text.
#pragma once

#include <string>
#include <vector>

struct FoundKernel {
  std::string name;
  std::string bounds;   // the arguments of __launch_bounds__, in parentheses
  std::string cluster;  // those of __cluster_dims__
};

// The kernels that have a plain name in the module: no templates, and `extern "C"` in force.
std::vector<FoundKernel> find_kernels(const std::string &text);
