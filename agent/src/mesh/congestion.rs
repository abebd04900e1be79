//! How much may be under way to a peer: Cubic, but never less than a new connection may send at once. Pure.
//!
//! quinn acknowledges nothing while it has data that its congestion window holds back. After losses that window is two datagrams, of
//! which one may be under way; when both ends have more to say than that, as all agents have when a step closes, neither acknowledges
//! anything until a probe time-out. The acknowledgement is late by that time-out, which makes the measured round trip, and with it the
//! next time-out, several times longer: two healthy machines over a healthy path were left with a datagram in seven seconds. A window
//! that holds what agents say at once keeps them out of this. It is no more than closing the connection and dialling again would allow,
//! and what an agent sends is bounded by the step, not by the window.

use crate::marks::bug;
use quinn::congestion::{Controller, ControllerFactory, CubicConfig};
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// Makes the controller of each connection.
#[derive(Default)]
pub(super) struct Floored(Arc<CubicConfig>);

impl ControllerFactory for Floored {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Floor(self.0.clone().build(now, mtu)))
    }
}

struct Floor(Box<dyn Controller>);

impl Controller for Floor {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.0.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &quinn_proto::RttEstimator) {
        self.0.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.0.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.0.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        let window = self.0.window();
        if bug!("congestion-window-without-floor") { window } else { window.max(self.0.initial_window()) }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self(self.0.clone_box()))
    }

    fn initial_window(&self) -> u64 {
        self.0.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn losses_leave_what_a_new_connection_may_send() {
        let t = Instant::now();
        let mut plain = Arc::new(CubicConfig::default()).build(t, 1200);
        let mut floored = Arc::new(Floored::default()).build(t, 1200);
        let at_first = floored.window();
        for controller in [&mut plain, &mut floored] {
            for second in 1..20 {
                let now = t + Duration::from_secs(second);
                controller.on_congestion_event(now, now, second % 5 == 0, 1200);
            }
        }
        assert!(plain.window() < at_first, "or the floor is for nothing");
        assert_eq!(floored.window(), at_first);
    }
}
