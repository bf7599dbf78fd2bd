//! Whatever a user writes: a scenario is taken or its faults are named, and both end without a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(faults) = vst_common::scenario::check::parse(text, "fuzzed.yaml", &[]) {
        // What a person sees has to be made as well.
        let _ = faults.to_string();
    }
});
