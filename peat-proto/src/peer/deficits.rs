//! Which class sends the next frame.

use crate::policy::{Class, Shares};

/// Deficit counters: the most important waiting class goes first as long as its share of what was sent while others
/// waited is not used up. (Deficit round robin, Shreedhar and Varghese 1995, with strict order among those in credit.)
#[derive(Debug, Default)]
pub(crate) struct Deficits {
    /// Bytes times 100 that a class may still send ahead of its share; negative when it has sent more.
    credit: [i64; 5],
}

/// A class that was quiet may claim at most this much of its past share: 64 KiB.
const CAP: i64 = (64 << 10) * 100;

/// A class owes at most this much: 32 MiB, two frames of the largest size.
const DEBT: i64 = (32 << 20) * 100;

impl Deficits {
    /// The class whose turn it is among those that wait.
    pub(crate) fn pick(&self, waiting: impl Fn(Class) -> bool) -> Option<Class> {
        let waiting = those(waiting);
        let in_credit = waiting.clone().find(|class| self.credit[class.index()] >= 0);
        in_credit.or_else(|| waiting.max_by_key(|class| self.credit[class.index()]))
    }

    /// Accounts for a frame: every waiting class earns its share of it, the sender pays for all of it.
    pub(crate) fn charge(&mut self, shares: &Shares, sender: Class, bytes: usize, waiting: impl Fn(Class) -> bool) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 1000);
        let earning = those(|class| class == sender || waiting(class));
        let total: i64 = earning.clone().map(|class| i64::from(shares.of(class))).sum();
        for class in earning {
            let earned = bytes.saturating_mul(100) / total.max(1) * i64::from(shares.of(class));
            let credit = &mut self.credit[class.index()];
            *credit = credit.saturating_add(earned).min(CAP);
        }
        let credit = &mut self.credit[sender.index()];
        *credit = credit.saturating_sub(bytes.saturating_mul(100)).max(-DEBT);
    }
}

/// The classes of which `holds` is true, asked once of each. Called for every frame: no allocation.
fn those(holds: impl Fn(Class) -> bool) -> impl Iterator<Item = Class> + Clone {
    let held = Class::ALL.map(holds);
    Class::ALL.into_iter().filter(move |class| held[class.index()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_waiting_class_gets_its_share_and_the_lowest_its_two_percent() {
        let mut deficits = Deficits::default();
        let mut sent = [0_usize; 5];
        for _ in 0..10_000 {
            let class = deficits.pick(|_| true).expect("all wait");
            sent[class.index()] += 1000;
            deficits.charge(&Shares::FIELDED, class, 1000, |_| true);
        }
        let total: usize = sent.iter().sum();
        for class in Class::ALL {
            let percent = sent[class.index()] * 100 / total;
            assert!(percent.abs_diff(Shares::FIELDED.of(class).into()) <= 1, "{class:?} got {percent} %");
        }
    }

    #[test]
    fn an_important_class_overtakes_at_the_next_frame() {
        let mut deficits = Deficits::default();
        for _ in 0..1000 {
            deficits.charge(&Shares::FIELDED, Class::Bulk, 64 << 10, |class| class == Class::Bulk);
        }
        assert_eq!(deficits.pick(|class| matches!(class, Class::Bulk | Class::Critical)), Some(Class::Critical));
    }
}
