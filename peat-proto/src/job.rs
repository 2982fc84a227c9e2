//! Computations too long for the caller's thread: pure, and run wherever the driver likes.
