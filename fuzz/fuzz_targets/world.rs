#![no_main]

use peat_tests::laws;

#[global_allocator]
static HEAP: laws::heap::Counting = laws::heap::Counting;

libfuzzer_sys::fuzz_target!(
    // The simulator catches panics and reports the steps: only those that nobody catches end the run.
    init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))),
    |input: &[u8]| {
        laws::world(input);
    }
);
