//! The core's randomness: seeded, small, and the same for ever.

/// xoshiro256++ 1.0 by Blackman and Vigna (public domain), seeded from 32 bytes.
///
/// Our own, so that a seed names the same run in every later version. Used for jitter only, never for a secret.
#[derive(Debug, Clone)]
pub struct Rng([u64; 4]);

impl Rng {
    /// A generator that is a function of `seed` alone.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let mut state = [0x9e37_79b9_7f4a_7c15; 4];
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(8)) {
            *word ^= bytes.iter().fold(0, |acc, byte| (acc << 8) | u64::from(*byte));
        }
        if state == [0; 4] {
            state[0] = 1;
        }
        let mut rng = Self(state);
        for _ in 0..8 {
            rng.draw();
        }
        rng
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        let [a, b, c, d] = self.0;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let mut next = [a, b, c ^ a, d ^ b];
        next[1] ^= next[2];
        next[0] ^= next[3];
        next[2] ^= b << 17;
        next[3] = next[3].rotate_left(45);
        self.0 = next;
        result
    }

    /// A number below `bound`; 0 for a bound of 0. Lemire's multiply-shift, bias below 2^-32 for the bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.draw()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_names_the_same_numbers_for_ever() {
        let mut rng = Rng::new([7; 32]);
        let drawn: Vec<u64> = (0..3).map(|_| rng.draw()).collect();
        let mut again = Rng::new([7; 32]);
        assert_eq!(drawn, (0..3).map(|_| again.draw()).collect::<Vec<_>>());
        assert_ne!(drawn[0], drawn[1]);
        assert!((0..1000).all(|_| rng.below(10) < 10));
        assert_eq!(rng.below(0), 0);
    }
}
