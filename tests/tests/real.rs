//! Suites against real servers, by the path that a user takes. One binary; run with `--test-threads=1`.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod real {
    mod architecture;
    mod bad_input;
    mod beside;
    mod billion;
    mod campaign;
    mod connections;
    mod copies;
    mod crowd;
    mod discovery;
    mod documents;
    mod durability;
    mod election;
    mod failover;
    mod filters;
    mod fit;
    mod fleet;
    mod hostile;
    mod kv;
    mod liar;
    mod library;
    mod limit;
    mod memory;
    mod mixed;
    mod operations;
    mod prefill;
    mod prometheus;
    mod quick;
    mod registry;
    mod rows;
    mod security;
    mod signals;
    mod stall;
    mod status;
    mod stores;
    mod target;
}
