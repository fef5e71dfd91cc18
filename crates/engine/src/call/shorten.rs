//! When the whole input fits nowhere and the contract allows it: the same request with a shorter input.
//!
//! Only when no path takes all of it: targets that do come first, whatever they cost in attempts. What is served from a
//! shortened input is marked. The engine says how many tokens may stay; the wire knows which turns they are.

use super::{Call, spend::scaled};
use crate::fleet::Fleet;
use outlast_model::policy::TargetSpec;

/// The output a shortened input leaves room for, when the request names no limit; at most a quarter of the window.
const ROOM_FOR_OUTPUT: u32 = 1024;

impl Call {
    /// Lets targets be asked with a shorter input that could not take all of it, by their window or their price, or said
    /// so. Once per call. False: there is none.
    pub(super) fn shorten(&mut self, fleet: &Fleet) -> bool {
        if self.shortened || self.route.route().contract.shorten.is_none() {
            return false;
        }
        self.shortened = true;
        let first_small = self.candidates.len();
        self.candidates.append(&mut self.small);
        let mut any = false;
        for at in 0..self.candidates.len() {
            let candidate = &self.candidates[at];
            let spec = &fleet.target(candidate.place.ix).spec;
            let in_vain = !candidate.tried && spec.context_window.is_some_and(|window| window <= self.larger_than);
            let to = if at >= first_small {
                self.room(candidate.place.ix, spec, fleet)
            } else if candidate.exceeded || in_vain {
                self.room_after_excess(candidate.place.ix, spec, fleet)
            } else {
                continue;
            };
            let candidate = &mut self.candidates[at];
            candidate.shorten_to = Some(to);
            // The same target with less to read is its one repetition.
            candidate.again = candidate.exceeded;
            candidate.tried = to == 0;
            // As little as possible is lost.
            candidate.rank = u64::from(u32::MAX - to);
            any |= to > 0;
        }
        any
    }

    /// The input tokens, by the wire's estimate, that a target's window and the money left have room for.
    fn room(&self, ix: usize, spec: &TargetSpec, fleet: &Fleet) -> u32 {
        let whole = self.needs.input_tokens;
        let counted = fleet.input_tokens(ix, &self.needs);
        let by_window = spec.context_window.map_or(u32::MAX, |window| {
            let output = self.needs.max_output_tokens.unwrap_or(ROOM_FOR_OUTPUT.min(window / 4));
            window.saturating_sub(output)
        });
        // Half of the money is for what comes back.
        let by_money = match (self.spend.left(), spec.price) {
            (Some(left), Some(price)) if price.input > 0 => {
                u32::try_from(left.as_nanos().saturating_mul(500) / price.input).unwrap_or(u32::MAX)
            }
            (Some(_) | None, Some(_) | None) => u32::MAX,
        };
        scaled(by_window.min(by_money).min(counted), whole, counted)
    }

    /// The same, where the target has counted more than was estimated: three quarters of what it should have taken, or
    /// half of what was sent when its window is unknown.
    fn room_after_excess(&self, ix: usize, spec: &TargetSpec, fleet: &Fleet) -> u32 {
        let room = self.room(ix, spec, fleet).min(self.needs.input_tokens);
        if spec.context_window.is_some() { room / 4 * 3 } else { room / 2 }
    }
}
