//! How much may be on its way: the controllers that QUIC is given.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, CubicConfig};

use crate::options::Congestion;

/// The round-trip time that is assumed before the first measurement (RFC 9002, 6.2.2).
const FIRST_RTT: Duration = Duration::from_millis(333);

/// The smallest window, in bytes: as many packets as a new connection may send at once (RFC 9002, 7.2).
const LEAST: u64 = 10 * 1200;

/// Lets one packet pass whatever is on its way already. Shared by all connections, because one task drives them all and
/// opens it for single packets of single connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Runs this with the gate open.
    pub(crate) fn opened<T>(&self, send: impl FnOnce() -> T) -> T {
        self.0.store(true, Ordering::Relaxed);
        let sent = send();
        self.0.store(false, Ordering::Relaxed);
        sent
    }
}

/// Makes the controllers of all connections.
pub(crate) struct Factory {
    pub(crate) congestion: Congestion,
    pub(crate) gate: Gate,
}

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let inner: Box<dyn Controller> = match self.congestion {
            Congestion::Cubic => Arc::new(CubicConfig::default()).build(now, mtu),
            Congestion::Fixed { bits_per_second } => Box::new(Fixed { bits_per_second, rtt: FIRST_RTT }),
        };
        Box::new(Gated { inner, gate: self.gate.clone() })
    }
}

/// Another controller, with a gate beside it.
struct Gated {
    inner: Box<dyn Controller>,
    gate: Gate,
}

impl Controller for Gated {
    fn on_sent(&mut self, now: Instant, bytes: u64, last: u64) {
        self.inner.on_sent(now, bytes, last);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        self.inner.on_congestion_event(now, sent, persistent, lost);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.inner.on_mtu_update(mtu);
    }

    fn window(&self) -> u64 {
        if self.gate.0.load(Ordering::Relaxed) { u64::MAX / 2 } else { self.inner.window() }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), gate: self.gate.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}

/// Twice the bandwidth-delay product of a provisioned rate, whatever gets lost: one half fills the path while the other is
/// being acknowledged or repaired.
#[derive(Clone)]
struct Fixed {
    bits_per_second: u64,
    rtt: Duration,
}

impl Controller for Fixed {
    fn on_ack(&mut self, _: Instant, _: Instant, _: u64, _: bool, rtt: &RttEstimator) {
        // The least that was seen: the estimate itself grows with our own queue.
        self.rtt = rtt.min();
    }

    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        let micros = u64::try_from(self.rtt.as_micros()).unwrap_or(u64::MAX);
        let product = u128::from(self.bits_per_second) * u128::from(micros) / 8_000_000;
        u64::try_from(2 * product).unwrap_or(u64::MAX / 2).clamp(LEAST, u64::MAX / 2)
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_window_is_twice_the_product_and_loss_does_not_shrink_it() {
        let mut fixed = Fixed { bits_per_second: 2_000_000, rtt: Duration::from_millis(100) };
        assert_eq!(fixed.window(), 50_000);
        let now = Instant::now();
        fixed.on_congestion_event(now, now, true, 50_000);
        assert_eq!(fixed.window(), 50_000);
        fixed.rtt = Duration::from_millis(1);
        assert_eq!(fixed.window(), LEAST);
        assert!(Fixed { bits_per_second: u64::MAX, rtt: Duration::MAX }.window() <= u64::MAX / 2);
    }

    #[test]
    fn an_open_gate_lets_a_packet_pass_a_full_window() {
        let gate = Gate::default();
        let congestion = Congestion::Fixed { bits_per_second: 1 };
        let factory = Arc::new(Factory { congestion, gate: gate.clone() });
        let controller = factory.build(Instant::now(), 1200);
        assert_eq!(controller.window(), LEAST);
        assert!(gate.opened(|| controller.window()) > 1 << 60);
        assert_eq!(controller.window(), LEAST);
    }
}
