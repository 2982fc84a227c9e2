//! Why something was not applied.

/// Why changes for one document were not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes are not what Automerge writes, or contradict what is known.
    #[error("the bytes are not a valid Automerge document or change")]
    Invalid,
    /// They would expand beyond [`AdmitLimits`](crate::config::AdmitLimits).
    #[error("the document would be larger than this node admits")]
    TooLarge,
    /// The document would have more than [`Record::MAX_HEADS`](crate::store::Record::MAX_HEADS) heads.
    #[error("the document would have too many concurrent heads")]
    TooManyHeads,
    /// Changes on which these build are not known here.
    #[error("changes on which these build are missing")]
    MissingChanges,
    /// The stored document is of a kind that only a later version understands.
    #[error("the document is of a kind that this version does not know")]
    Foreign,
    /// The stored document cannot be read now.
    #[error("the stored document cannot be read")]
    Quarantined,
    /// The node holds as much unfinished work as it may.
    #[error("the node has too much unfinished work")]
    Busy,
    /// The document was deleted.
    #[error("the document is deleted")]
    Deleted,
    /// The document's time to live is over.
    #[error("the document's time is over")]
    Expired,
    /// The policy does not let this peer do that in this collection.
    #[error("the peer may not do that in this collection")]
    NotAllowed,
    /// The node remembers as many deletions as it may.
    #[error("the node remembers as many deletions as it may")]
    Full,
    /// The peer gave a reason that this version does not know.
    #[error("the peer gave a reason that this version does not know")]
    Unknown,
}

impl Refusal {
    /// All with a number, in its order, from 1.
    const NUMBERED: [Self; 11] = [
        Self::Invalid,
        Self::TooLarge,
        Self::TooManyHeads,
        Self::MissingChanges,
        Self::Foreign,
        Self::Quarantined,
        Self::Busy,
        Self::Deleted,
        Self::Expired,
        Self::NotAllowed,
        Self::Full,
    ];

    /// Whether it may stop to hold without anything being changed: what was refused for it is tried again, rarely.
    pub(crate) fn may_pass(self) -> bool {
        matches!(self, Self::Quarantined | Self::Busy | Self::Full | Self::MissingChanges | Self::Unknown)
    }

    /// The number on the wire; 0 for [`Self::Unknown`].
    #[must_use]
    pub fn code(self) -> u64 {
        Self::NUMBERED.iter().zip(1..).find(|(reason, _)| **reason == self).map_or(0, |(_, code)| code)
    }

    /// The reason of this number.
    #[must_use]
    pub fn from_code(code: u64) -> Self {
        Self::NUMBERED
            .into_iter()
            .zip(1..)
            .find(|(_, known)| *known == code)
            .map_or(Self::Unknown, |(reason, _)| reason)
    }
}
