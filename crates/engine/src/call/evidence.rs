//! What a call tells the fleet about the targets it met.

use super::{Call, Told, attempt::Flight};
use crate::fleet::{Fleet, ReplyQuality};
use outlast_model::{
    Failure, FailureReport, Mono,
    failure::{Blame, ConnectionFault, Deadline},
};

impl Call {
    /// What the failure says about the target, its key or nobody.
    pub(super) fn give_evidence(&mut self, fleet: &mut Fleet, report: &FailureReport, answered: bool, now: Mono) {
        let Some(flight) = &self.flight else { return };
        let (ix, key, sent, trial) = (flight.ix, flight.key, flight.started, flight.trial);
        if report.status.is_some() && report.failure.remedy().blame != Blame::Fault {
            self.absolve(fleet, ix, now);
        }
        let Some(flight) = &self.flight else { return };
        match report.failure.remedy().blame {
            Blame::Fault if fair(flight, report.failure, fleet, now) => {
                self.tell_fault(fleet, ix, trial, report, now);
            }
            Blame::Schedule => fleet.rate_limited(ix, key, sent, report.retry_after, now),
            Blame::KeyOut => fleet.key_out(ix, key, report.failure, sent, now),
            Blame::TargetOut => fleet.deny(ix, now),
            // It answered, if badly: alive.
            Blame::Quality => {
                if !answered {
                    let place = self.candidates[flight.at].place;
                    fleet.note_reply(place, ReplyQuality::of_failure(report.failure), now);
                }
                self.tell_success(fleet, now);
            }
            // A complete reply, or an error that only a working target gives; but what the client did moves no breaker.
            Blame::None if answered || report.status.is_some() => {
                if !client_side(report.failure) {
                    self.tell_success(fleet, now);
                }
                fleet.key_passed(ix, key, sent, now);
            }
            Blame::Fault | Blame::None => {}
        }
    }

    /// A fault, once per target; and if it is the same on a second target, the request is to blame.
    pub(super) fn tell_fault(&mut self, fleet: &mut Fleet, ix: usize, trial: bool, report: &FailureReport, now: Mono) {
        if let Some(told) = self.told.iter_mut().find(|told| told.ix == ix) {
            told.suspicion = false;
            return;
        }
        let receipt = fleet.fault(ix, trial, report.failure, report.retry_after, now);
        self.told.push(Told { ix, failure: report.failure, receipt: Some(receipt), suspicion: false });
        let alike = |told: &Told| told.failure == report.failure;
        if may_be_the_request(report.failure) && self.told.iter().filter(|told| alike(told)).count() == 2 {
            for (ix, receipt) in
                self.told.iter().filter(|told| alike(told)).filter_map(|told| Some((told.ix, told.receipt?)))
            {
                fleet.forgive(ix, receipt, now);
            }
        }
    }

    /// A success, unless this call has already held something else against the target.
    pub(super) fn tell_success(&mut self, fleet: &mut Fleet, now: Mono) {
        let Some(flight) = &self.flight else { return };
        let (ix, trial) = (flight.ix, flight.trial);
        self.absolve(fleet, ix, now);
        if !self.told.iter().any(|told| told.ix == ix) {
            fleet.success(ix, trial, now);
        }
    }

    /// It was only late: the suspicion is taken back.
    pub(super) fn absolve(&mut self, fleet: &mut Fleet, ix: usize, now: Mono) {
        let at = self.told.iter().position(|told| told.ix == ix && told.suspicion);
        if let Some(receipt) = at.and_then(|at| self.told.swap_remove(at).receipt) {
            fleet.take_back(ix, receipt, now);
        }
    }
}

/// Whether passing a deadline says something about the target: not when the client's own deadline cut it shorter than
/// nearly all of the target's replies take. Everything but a timeout does.
pub(super) fn fair(flight: &Flight, failure: Failure, fleet: &Fleet, now: Mono) -> bool {
    let Failure::Timeout(deadline) = failure else { return true };
    let target = fleet.target(flight.ix);
    let limits = &target.spec.timeouts;
    let configured = match deadline {
        Deadline::Connect => limits.connect,
        Deadline::Header => limits.header,
        Deadline::FirstToken => limits.first_token,
        Deadline::Idle => limits.idle,
        Deadline::Total => limits.total,
    };
    let since = if deadline == Deadline::Idle { flight.last } else { flight.started };
    let latency = if flight.streamed { &target.first_output } else { &target.whole_reply };
    now.since(since) >= configured.min(latency.p99(flight.input_tokens))
}

/// Failures that a request can bring about wherever it goes.
fn may_be_the_request(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::ServerError
            | Failure::MalformedReply
            | Failure::StreamInterrupted
            | Failure::Connection(ConnectionFault::Reset)
            | Failure::Timeout(Deadline::Header | Deadline::FirstToken | Deadline::Idle)
    )
}

/// The client's own doing: it moves no breaker, not even towards health.
fn client_side(failure: Failure) -> bool {
    matches!(failure, Failure::InvalidRequest | Failure::Cancelled | Failure::ContextExceeded | Failure::Unsupported)
}
