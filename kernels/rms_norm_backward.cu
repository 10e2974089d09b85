// The gradients of root-mean-square normalisation.
#define CENTERED false
#include "norm_backward.cuh"
