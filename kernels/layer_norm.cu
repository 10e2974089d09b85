// Layer normalisation (J. L. Ba, J. R. Kiros, G. E. Hinton 2016, arXiv:1607.06450).
#define CENTERED true
#include "norm.cuh"
