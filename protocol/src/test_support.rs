//! For tests: deterministic entropy and, later in this file, a pair of links on a virtual clock.
