#![no_main]

use peat_tests::laws;

#[global_allocator]
static HEAP: laws::heap::Counting = laws::heap::Counting;

libfuzzer_sys::fuzz_target!(
    // Automerge's panics are caught by the core: only those that nobody catches end the run.
    init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))),
    |input: &[u8]| {
        laws::admit(input);
    }
);
