//! How many operations the changes of a saved document claim.

use crate::io::Refusal;

/// The change columns of a saved document from which Automerge computes how much room each change needs.
///
/// A document stores the highest operation number of each change and, by position, its dependencies. Automerge takes
/// the distance to the highest number among the dependencies as the change's size and makes room for it at once.
#[derive(Debug, Default)]
pub(super) struct History {
    max_ops: Vec<u32>,
    dep_counts: Vec<u32>,
    deps: Vec<u32>,
}

impl History {
    const MAX_OP: u64 = 1;
    /// The id of the column of timestamps.
    pub(super) const TIME: u64 = 2;
    /// The id of the group of dependencies.
    pub(super) const DEPS: u64 = 4;

    /// `count` changes in a row have `value` dependencies each.
    pub(super) fn dep_counts(&mut self, value: u64, count: u64) -> Result<(), Refusal> {
        let value = u32::try_from(value).map_err(|_| Refusal::TooLarge)?;
        extend(&mut self.dep_counts, count, |_| Ok(value))
    }

    /// `count` numbers of the column `id`, from `first` on, `step` apart.
    pub(super) fn numbers(&mut self, id: u64, first: i64, step: i64, count: u64) -> Result<(), Refusal> {
        let column = match id {
            Self::MAX_OP => &mut self.max_ops,
            Self::DEPS => &mut self.deps,
            _ => return Ok(()),
        };
        extend(column, count, |nth| {
            step.checked_mul(nth)
                .and_then(|distance| first.checked_add(distance))
                .and_then(|number| u32::try_from(number).ok())
                .ok_or(Refusal::Invalid)
        })
    }

    /// Operations of all changes together.
    pub(super) fn operations(&self, changes: u64) -> Result<u64, Refusal> {
        let lengths = [self.max_ops.len(), self.dep_counts.len()];
        if lengths.iter().any(|&len| len as u64 != changes) {
            return Err(Refusal::Invalid);
        }
        let mut deps = self.deps.as_slice();
        let mut operations = 0;
        for (position, (&max_op, &count)) in self.max_ops.iter().zip(&self.dep_counts).enumerate() {
            let (own, others) = deps.split_at_checked(count as usize).ok_or(Refusal::Invalid)?;
            deps = others;
            let mut start = 0;
            for &dep in own {
                let earlier = self.max_ops.get(..position).unwrap_or_default();
                let max_op = earlier.get(dep as usize).ok_or(Refusal::Invalid)?;
                start = start.max(*max_op);
            }
            let own = max_op.checked_sub(start).ok_or(Refusal::Invalid)?;
            operations += u64::from(own);
        }
        Ok(operations)
    }
}

fn extend(
    column: &mut Vec<u32>,
    count: u64,
    mut value: impl FnMut(i64) -> Result<u32, Refusal>,
) -> Result<(), Refusal> {
    for nth in 0..i64::try_from(count).map_err(|_| Refusal::TooLarge)? {
        column.push(value(nth)?);
    }
    Ok(())
}
