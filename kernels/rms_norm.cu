// Root-mean-square normalisation (B. Zhang, R. Sennrich 2019, arXiv:1910.07467).
#define CENTERED false
#include "norm.cuh"
