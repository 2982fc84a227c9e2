//! What a legacy peer is told of without being asked: everything, once, when it connects.

use crate::id::DocId;
use crate::policy::Class;
use crate::time::Time;

/// What is pushed of a class, one behind the other: the cheap before the dear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Stage {
    /// What was deleted.
    #[default]
    Markers,
    /// Documents that travel as snapshots.
    Snapshots,
    /// Documents that travel with their history.
    Histories,
    Done,
}

/// A cursor over the index, so that no backlog is held in memory: for each class the stage, and the last document of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Push {
    stages: [(Stage, Option<DocId>); 5],
    /// A step found nothing to say: it goes on then, so that others have their turn meanwhile.
    pub(crate) rests: Option<Time>,
}

impl Push {
    /// Whether there is more of a class, and it is not at rest.
    pub(crate) fn waits(&self, class: Class) -> bool {
        self.stage(class) != Stage::Done && self.rests.is_none()
    }

    pub(crate) fn go_on(&mut self, now: Time) {
        self.rests = self.rests.filter(|until| *until > now);
    }

    pub(crate) fn is_done(&self) -> bool {
        self.stages.iter().all(|(stage, _)| *stage == Stage::Done)
    }

    pub(crate) fn stage(&self, class: Class) -> Stage {
        self.stages[class.index()].0
    }

    /// The last document that the stage has come to.
    pub(crate) fn behind(&self, class: Class) -> Option<&DocId> {
        self.stages[class.index()].1.as_ref()
    }

    pub(crate) fn advance(&mut self, class: Class, to: DocId) {
        self.stages[class.index()].1 = Some(to);
    }

    /// The stage has come to the end of the class.
    pub(crate) fn finish_stage(&mut self, class: Class) {
        let (stage, behind) = &mut self.stages[class.index()];
        *behind = None;
        *stage = match stage {
            Stage::Markers => Stage::Snapshots,
            Stage::Snapshots => Stage::Histories,
            Stage::Histories | Stage::Done => Stage::Done,
        };
    }

    /// Whether the push will still come to this document, which is of this stage.
    pub(crate) fn comes_to(&self, class: Class, stage: Stage, doc: &DocId) -> bool {
        let (at, behind) = &self.stages[class.index()];
        *at < stage || (*at == stage && behind.as_ref().is_none_or(|behind| behind < doc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_of_each_class_comes_to_every_document_once() {
        let mut push = Push::default();
        let doc = |name| DocId::new(name).expect("a valid name");
        let (a, b) = (doc("notes:a"), doc("notes:b"));
        assert!(push.comes_to(Class::Bulk, Stage::Markers, &a) && push.comes_to(Class::Bulk, Stage::Histories, &a));
        push.advance(Class::Bulk, a.clone());
        assert!(!push.comes_to(Class::Bulk, Stage::Markers, &a) && push.comes_to(Class::Bulk, Stage::Markers, &b));
        push.finish_stage(Class::Bulk);
        assert!(!push.comes_to(Class::Bulk, Stage::Markers, &b) && push.comes_to(Class::Bulk, Stage::Snapshots, &a));
        push.finish_stage(Class::Bulk);
        push.finish_stage(Class::Bulk);
        assert!(!push.waits(Class::Bulk) && push.waits(Class::High) && !push.is_done());
        assert!(!push.comes_to(Class::Bulk, Stage::Histories, &a));
        for class in Class::ALL {
            (0..3).for_each(|_| push.finish_stage(class));
        }
        assert!(push.is_done());
    }
}
