// For functions that the threads of a GPU call, and the host.
#pragma once

#ifdef __CUDACC__
#define C2AM_HD __host__ __device__ __forceinline__
#else
#define C2AM_HD inline
#endif
