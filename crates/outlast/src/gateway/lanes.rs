//! The exchanges of one call: mostly one, two while they race, and one more whose reply is kept for worse times.

use super::exchange::{Exchange, Seen};
use outlast_wire::compose::Said;

/// At most two exchanges that may still speak, and one kept reply.
#[derive(Default)]
pub(super) struct Lanes {
    first: Option<Exchange>,
    /// Boxed: most calls never race, and their future should not be larger for it.
    second: Option<Box<Exchange>>,
    kept: Option<Box<Exchange>>,
}

impl Lanes {
    /// Adds an exchange. It takes the place of one that is over.
    pub(super) fn add(&mut self, exchange: Exchange) {
        match (&self.first, &self.second) {
            (Some(first), None) if !first.is_over() => self.second = Some(Box::new(exchange)),
            (Some(first), Some(second)) if !first.is_over() => {
                debug_assert!(second.is_over(), "a call never has more than two exchanges at once");
                self.second = Some(Box::new(exchange));
            }
            (Some(_) | None, _) => self.first = Some(exchange),
        }
    }

    /// Waits for the next thing that happens in any of them. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> (u8, Seen) {
        match (&mut self.first, &mut self.second) {
            (Some(one), None) => (one.attempt, one.next().await),
            (None, Some(one)) => (one.attempt, one.next().await),
            (Some(one), Some(other)) => {
                let numbers = (one.attempt, other.attempt);
                tokio::select! {
                    biased;
                    seen = one.next() => (numbers.0, seen),
                    seen = other.next() => (numbers.1, seen),
                }
            }
            (None, None) => std::future::pending().await,
        }
    }

    /// The exchange of that attempt, kept ones included.
    pub(super) fn get(&mut self, attempt: u8) -> Option<&mut Exchange> {
        let racing = [self.first.as_mut(), self.second.as_deref_mut(), self.kept.as_deref_mut()];
        racing.into_iter().flatten().find(|exchange| exchange.attempt == attempt)
    }

    /// What the latest of the complete replies says.
    pub(super) fn last_said(&self) -> Option<Said> {
        let lanes = [self.first.as_ref(), self.second.as_deref(), self.kept.as_deref()];
        let said = lanes.into_iter().flatten().filter_map(|exchange| Some((exchange.attempt, exchange.said()?)));
        said.max_by_key(|(attempt, _)| *attempt).map(|(_, said)| said)
    }

    /// Takes that attempt's exchange out.
    pub(super) fn take(&mut self, attempt: u8) -> Option<Exchange> {
        let is_it = |exchange: &Exchange| exchange.attempt == attempt;
        if let Some(exchange) = self.first.take_if(|exchange| is_it(exchange)) {
            return Some(exchange);
        }
        let boxed = self.second.take_if(|exchange| is_it(exchange));
        boxed.or_else(|| self.kept.take_if(|exchange| is_it(exchange))).map(|exchange| *exchange)
    }

    /// Sets that attempt's reply aside: no further exchange takes its place.
    pub(super) fn keep(&mut self, attempt: u8) {
        self.kept = self.take(attempt).map(Box::new);
    }
}
