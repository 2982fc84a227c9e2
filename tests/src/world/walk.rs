//! The swarm walk: a seed draws which faults exist and how often, then the steps. (Swarm testing, Groce and others 2012:
//! leaving faults out altogether finds what their mixture hides.)

use peat_proto::Rng;

use super::fielded::Fielded;
use super::link::Profile;
use super::setup::{Habit, Setup, Topology, draw};
use super::step::Step;
use crate::legacy::Dialect;

/// What a walk is made of; chances that are given replace those that the seed would draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    /// Honest nodes.
    pub nodes: usize,
    /// Documents.
    pub docs: usize,
    /// Fielded peers of the legacy wire.
    pub fielded: usize,
    /// Of every hundred links between nodes, so many speak the legacy wire; drawn where there are fielded peers.
    pub legacy: Option<u8>,
    /// Steps that are to find something to do.
    pub steps: usize,
    /// Loss on every path, 0 to 1.
    pub loss: Option<f64>,
    /// Chance of a crash at every step, 0 to 1.
    pub crash: Option<f64>,
    /// Chance of a partition at every step, 0 to 1.
    pub partition: Option<f64>,
}

impl Default for Mix {
    fn default() -> Self {
        Self { nodes: 3, docs: 10, fielded: 0, legacy: None, steps: 200, loss: None, crash: None, partition: None }
    }
}

/// The world and the steps that a seed stands for: more than `mix.steps` of them, for some will find nothing to do.
#[must_use]
pub fn walk(seed: u64, mix: &Mix) -> (Setup, Vec<Step>) {
    let mut bytes = [0x77; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let mut rng = Rng::new(bytes);
    let setup = setup(seed, mix, &mut rng);
    let weights = weights(mix, &mut rng);
    // Now and then most of what is written goes to a few documents, whose histories grow long.
    let focus = pick(&mut rng, &[1, 3, mix.docs, mix.docs]);
    let total: u64 = weights.iter().sum();
    let steps = (0..SPARE * mix.steps).map(|_| {
        let mut left = rng.below(total);
        let kind = weights.iter().position(|weight| {
            let found = left < *weight;
            left = left.saturating_sub(*weight);
            found
        });
        step(kind.unwrap_or(KINDS - 1), focus, &mut rng)
    });
    let steps = steps.collect();
    (setup, steps)
}

fn setup(seed: u64, mix: &Mix, rng: &mut Rng) -> Setup {
    let mut profile = pick(rng, &Profile::PRESETS);
    if rng.below(3) == 0 {
        profile = profile.calm();
    }
    if rng.below(3) == 0 {
        profile.loss = rng.below(5_001) as u16;
    }
    if let Some(loss) = mix.loss {
        profile.loss = parts(loss);
    }
    if rng.below(3) == 0 {
        (profile.duplicate, profile.reorder) = (rng.below(2_000) as u16, rng.below(2_000) as u16);
    }
    if rng.below(2) == 0 {
        (profile.reset, profile.hangup) = (rng.below(300) as u16, rng.below(100) as u16);
    }
    let hostile = (0..rng.below(3)).map(|_| pick(rng, &Habit::ALL)).collect();
    let hostile = if rng.below(4) == 0 { hostile } else { Vec::new() };
    let mut setup = Setup {
        topology: pick(rng, &[Topology::Full, Topology::Full, Topology::Line, Topology::Ring, Topology::Star]),
        datagram: pick(rng, &[0, 0, 50, 100]),
        profile,
        hostile,
        fielded: (0..mix.fielded).map(|_| Fielded::drawn(rng.draw())).collect(),
        cache: pick(rng, &[0, 30_000, 64 << 20, 64 << 20, 64 << 20]),
        frame: pick(rng, &[200, 1 << 10, 64 << 10, 64 << 10]),
        window: pick(rng, &[(0, 1), (0, 300), (1_024, 8 << 10), (8 << 10, 4 << 20), (8 << 10, 4 << 20)]),
        // Room for three payloads that wait, or for seven: each counts a kibibyte more than its bytes. With room for one, each
        // change of a document waits 20 s for the next try of its sender.
        undurable: pick(rng, &[4_000, 8_000, 16 << 20, 16 << 20]),
        inline: pick(rng, &[0, 400, 2_000, 64 << 10, 64 << 10]),
        job: pick(rng, &[0, 0, 20_000, 2_000_000]),
        lazy: pick(rng, &[0, 0, 2_000, 200_000]),
        disk: pick(rng, &[500, 5_000, 100_000]),
        skew: pick(rng, &[0, 0, 3_000, 100_000_000]),
        stormy: rng.below(8) == 0,
        ..Setup::quiet(seed, mix.nodes, mix.docs)
    };
    if rng.below(3) == 0 {
        let enough = enough(mix);
        (setup.receive, setup.pieces) = (pick(rng, &[enough, 32 << 20]), pick(rng, &[enough, 32 << 20]));
        // Each document of the world is followed at most once over each connection; whoever gets no frozen set is answered
        // with ranges.
        (setup.exchanges, setup.sketches) = (pick(rng, &[mix.docs, 4096]), pick(rng, &[0, 1, 32]));
    }
    if mix.fielded == 0 && mix.legacy.is_none() && rng.below(8) == 0 {
        setup.ranks = (0..mix.nodes).map(|_| rng.below(3) as u8).collect();
    }
    if mix.fielded > 0 || mix.legacy.is_some() {
        setup.legacy = mix.legacy.unwrap_or_else(|| pick(rng, &[0, 0, 50, 100]));
        setup.proof = pick(rng, &[None, Some(Dialect::M), Some(Dialect::P)]);
        for kind in &mut setup.fielded {
            *kind = kind.proving(setup.proof);
        }
    }
    setup
}

/// Bytes in which everything that is written in a world has room twice, from each peer: one connection may take half of a
/// budget. One edit in twelve is a blob of 1 KiB on average, the others take 150 B at most: 220 B for each step, and 1 KiB
/// of bookkeeping for each document in pieces.
fn enough(mix: &Mix) -> usize {
    let peers = (mix.nodes + mix.fielded).saturating_sub(1).max(1);
    peers * (512 * mix.steps + 1024 * mix.docs)
}

/// Steps are drawn for each that is to find something to do. The world in which the fewest of 10,000 did had one of two.
const SPARE: usize = 3;

/// The kinds of step, in the order of `weights`.
const KINDS: usize = 27;

/// How often each kind comes; a fault that does not exist in this world has 0. Edits come in floods, now and then, or
/// hardly ever: fleets in which next to nothing is written have bugs of their own.
fn weights(mix: &Mix, rng: &mut Rng) -> [u64; KINDS] {
    let edits = pick(rng, &[10, 60, 240]);
    let mut often = |most: u64| if rng.below(2) == 0 { 0 } else { 1 + rng.below(most) };
    let mut weights = [
        edits,
        often(30),
        often(30),
        often(100),
        often(60),
        often(60),
        300,
        20 + often(30),
        often(20),
        often(20),
        often(20),
        often(20),
        often(20),
        often(20),
        often(20),
        often(10),
        20,
        often(20),
        often(20),
        often(20),
        often(30),
        often(10),
        if mix.fielded > 0 { 100 } else { 0 },
        if mix.fielded > 0 { 5 } else { 0 },
        often(20),
        if mix.fielded > 0 { 5 } else { 0 },
        if mix.fielded > 0 { often(5) } else { 0 },
    ];
    let sum = |weights: &[u64; KINDS], but: usize| weights.iter().sum::<u64>() - weights[but];
    for (kind, chance) in [(CRASH, mix.crash), (PARTITION, mix.partition)] {
        if let Some(chance) = chance {
            let parts = u64::from(parts(chance)).min(9_000);
            weights[kind] = sum(&weights, kind) * parts / (10_000 - parts);
        }
    }
    weights
}

const EDIT: usize = 0;
const CLOSE: usize = 2;
const CRASH: usize = 11;
const PARTITION: usize = 15;

fn step(kind: usize, focus: usize, rng: &mut Rng) -> Step {
    let mut byte = || rng.below(256) as u8;
    let (node, other) = (byte(), byte());
    let doc = EDIT..=CLOSE;
    let wide = if doc.contains(&kind) { draw(rng, focus) as u16 } else { rng.below(1 << 16) as u16 };
    let value = rng.below(1 << 32) as u32;
    Step::drawn(kind, node, other, wide, value)
}

impl Step {
    /// The step of this kind, modulo what exists, with as many of the arguments as it has. Every step can be drawn.
    #[must_use]
    pub fn drawn(kind: usize, node: u8, other: u8, wide: u16, value: u32) -> Self {
        match kind % KINDS {
            EDIT => Self::Edit { node, doc: wide, kind: other, value },
            1 => Self::Open { node, doc: wide },
            CLOSE => Self::Close { node, doc: wide },
            3 => Self::Deliver { packet: wide },
            4 => Self::Drop { packet: wide },
            5 => Self::Duplicate { packet: wide },
            // Mostly short, so that much is on its way at once; now and then longer than every timer.
            6 => Self::Advance { ms: if value.is_multiple_of(16) { wide % 20_000 } else { wide % 300 } },
            7 => Self::Commit { node },
            8 => Self::Pause { node },
            9 => Self::FailWrites { node, count: other },
            10 => Self::FailLoads { node, count: other },
            CRASH => Self::Crash { node, keep: other },
            12 => Self::Restart { node },
            13 => Self::Reboot { node },
            14 => Self::Cut { from: node, to: other },
            PARTITION => Self::Partition { side: value },
            16 => Self::Heal,
            17 => Self::Connect { from: node, to: other },
            18 => Self::Disconnect { conn: node },
            19 => Self::Squeeze { from: node, to: other, ms: wide % 10_000 },
            20 => Self::Evict { node },
            21 => Self::Clock { node, seconds: (wide % 7_200) as i16 - 3_600 },
            22 => Self::FieldedEdit { peer: node, doc: wide, value },
            23 => Self::FieldedRestart { peer: node },
            24 => Self::Delete { node, doc: wide },
            25 => Self::FieldedDelete { peer: node, doc: wide },
            _ => Self::FieldedForge { peer: node, doc: wide, value },
        }
    }
}

fn pick<T: Clone>(rng: &mut Rng, among: &[T]) -> T {
    among[draw(rng, among.len())].clone()
}

/// A chance between 0 and 1 as parts in 10,000.
fn parts(chance: f64) -> u16 {
    (chance.clamp(0.0, 1.0) * 10_000.0) as u16
}
