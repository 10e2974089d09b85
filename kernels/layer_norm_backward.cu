// The gradients of layer normalisation.
#define CENTERED true
#include "norm_backward.cuh"
