//! Listens for `error!` lines: a node that writes one says itself that something is wrong.

use std::cell::Cell;
use std::sync::Once;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    static ERRORS: Cell<u64> = const { Cell::new(0) };
}

struct Ear;

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR && metadata.target().starts_with("peat")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        ERRORS.with(|errors| errors.set(errors.get() + 1));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Begins to listen, in this process; once is enough. Whoever listens already would leave us deaf.
pub(crate) fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        tracing::subscriber::set_global_default(Ear).expect("nobody else listens in this process");
    });
}

/// How many errors were logged on this thread since the last call.
pub(crate) fn errors() -> u64 {
    ERRORS.with(|errors| errors.replace(0))
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_error_line_is_heard_and_a_warning_is_not() {
        super::listen();
        super::errors();
        tracing::error!(target: "peat_proto", "planted");
        tracing::warn!(target: "peat_proto", "planted");
        assert_eq!((super::errors(), super::errors()), (1, 0));
    }
}
