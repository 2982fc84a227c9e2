//! What holds for a whole fleet, whatever is done to it.

use crate::world::{Mix, Step, as_test, run, walk};

/// Bytes of a step: `kind u8 | node u8 | other u8 | wide u16 | value u24`.
const STEP: usize = 8;

/// Longest walk; a run of more steps finds more slowly what a run of fewer finds too.
const STEPS: usize = 100;

/// A world and what is done to it: `seed u16 | nodes u8 | steps`. The seed draws everything but the steps. No step may
/// violate anything, and the healed fleet must be equal and silent.
pub fn world(input: &[u8]) -> bool {
    let Some((&[high, low, nodes], rest)) = input.split_first_chunk() else { return false };
    let mix = Mix { nodes: 1 + usize::from(nodes % 4), docs: 6, steps: STEPS, ..Mix::default() };
    let (setup, _) = walk(u16::from_be_bytes([high, low]).into(), &mix);
    let (steps, _) = rest.as_chunks::<STEP>();
    let steps: Vec<Step> = steps.iter().take(STEPS).map(step).collect();
    let verdict = run(&setup, &steps);
    if let Some(violation) = &verdict.violation {
        panic!("{violation}\n\n{}", as_test(&setup, &steps, violation));
    }
    verdict.edits > 0
}

fn step(&[kind, node, other, w0, w1, v0, v1, v2]: &[u8; STEP]) -> Step {
    Step::drawn(kind.into(), node, other, u16::from_be_bytes([w0, w1]), u32::from_be_bytes([0, v0, v1, v2]))
}
