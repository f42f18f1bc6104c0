"""Triton kernels, one file per op; `c2am.ops` checks the arguments and calls them."""
