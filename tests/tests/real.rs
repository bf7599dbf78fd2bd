//! Suites against real servers, by the path that a user takes. One binary; run with `--test-threads=1`.

mod real {
    mod architecture;
    mod bad_input;
    mod durability;
    mod quick;
    mod stall;
    mod target;
}
