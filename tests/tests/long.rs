//! Suites that take minutes; `make test` leaves them out, each has a target of its own. Run with `--test-threads=1`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails; these say what they measured"
)]

mod long {
    mod analysis;
    mod campaign;
    mod connections;
    mod copies;
    mod crowd;
    mod election;
    mod library;
    mod limit;
    mod load;
    mod predict;
    mod rates;
    mod regress;
    mod shrink;
    mod small_campaign;
}
