//! Suites that take minutes; `make test` leaves them out, each has a target of its own. Run with `--test-threads=1`.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod long {
    mod copies;
}
