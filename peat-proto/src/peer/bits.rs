//! A set of document slots.

/// One bit per slot: 125 kB for a million documents.
#[derive(Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
    count: u64,
}

impl Bits {
    pub(crate) fn contains(&self, slot: u32) -> bool {
        let (word, bit) = place(slot);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// How many slots are in the set.
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// Puts all slots below `end` into the set.
    pub(crate) fn fill(&mut self, end: u32) {
        let (word, bit) = place(end);
        self.words.clear();
        self.words.resize(word, u64::MAX);
        self.words.push(bit - 1);
        self.count = u64::from(end);
    }

    pub(crate) fn insert(&mut self, slot: u32) {
        let (word, bit) = place(slot);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        if let Some(bits) = self.words.get_mut(word) {
            self.count += u64::from(*bits & bit == 0);
            *bits |= bit;
        }
    }

    /// Whether the slot was in the set.
    pub(crate) fn remove(&mut self, slot: u32) -> bool {
        let (word, bit) = place(slot);
        let Some(bits) = self.words.get_mut(word) else { return false };
        let was = *bits & bit != 0;
        self.count -= u64::from(was);
        *bits &= !bit;
        was
    }
}

fn place(slot: u32) -> (usize, u64) {
    (slot as usize / 64, 1 << (slot % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_in_the_set_from_insertion_to_removal() {
        let mut bits = Bits::default();
        assert!(!bits.contains(700) && !bits.remove(700));
        bits.insert(700);
        bits.insert(700);
        assert!(bits.contains(700) && !bits.contains(699));
        assert_eq!(bits.len(), 1);
        assert!(bits.remove(700) && !bits.contains(700));
        assert_eq!(bits.len(), 0);
        bits.fill(130);
        assert!(bits.contains(0) && bits.contains(129) && !bits.contains(130));
        assert_eq!(bits.len(), 130);
    }
}
