//! Runs that once failed, each named after the bug that it holds down.
