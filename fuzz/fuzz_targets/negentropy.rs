#![no_main]

use peat_tests::laws;

#[global_allocator]
static HEAP: laws::heap::Counting = laws::heap::Counting;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    laws::negentropy(input);
});
