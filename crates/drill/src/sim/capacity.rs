//! A target of limited capacity: one server that works its queue off in order, and the oracle of such a server.

use super::{model, scenario::Scenario, world::Slot};
use outlast_engine::TargetIx;
use outlast_model::Mono;
use std::{collections::VecDeque, time::Duration};

/// What waits for the server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    Call(Slot, u8),
    Probe { target: TargetIx, key: u8, sent: Mono, timeout: Duration },
}

/// One server with exponential service times. Its queue is bounded by the calls in flight.
pub(super) struct Server {
    queue: VecDeque<Job>,
    busy: bool,
    rng: fastrand::Rng,
}

impl Server {
    pub(super) fn new(seed: u64) -> Self {
        Server { queue: VecDeque::new(), busy: false, rng: fastrand::Rng::with_seed(seed ^ 0x0005_e2e2) }
    }

    pub(super) fn push(&mut self, job: Job) {
        self.queue.push_back(job);
    }

    pub(super) fn pop(&mut self) -> Option<Job> {
        self.queue.pop_front()
    }

    pub(super) fn busy(&self) -> bool {
        self.busy
    }

    /// Begins a job; it takes so long.
    pub(super) fn start(&mut self, per_sec: f64) -> Duration {
        self.busy = true;
        model::exponential(&mut self.rng, 1.0 / per_sec)
    }

    pub(super) fn done(&mut self) {
        self.busy = false;
    }
}

/// The best that can be done with the capacity by somebody who cannot know how long a job will take: everybody queues in
/// order of arrival, nobody is sent twice, and whoever's time is up while waiting leaves without costing anything.
/// Answers the waits of those served.
pub(super) fn oracle(scenario: Scenario, seed: u64, load_per_sec: f64, arrivals: &[Mono]) -> Vec<Duration> {
    let mut server = Server::new(seed);
    let mut free_at = Mono::ZERO;
    let mut waits = Vec::with_capacity(arrivals.len());
    for arrived in arrivals {
        let (begin, deadline) = (free_at.max(*arrived), *arrived + scenario.deadline());
        if begin >= deadline {
            continue;
        }
        let done = begin + server.start(scenario.capacity(load_per_sec, begin));
        if done <= deadline {
            waits.push(done.since(*arrived));
        }
        free_at = done;
    }
    waits
}
