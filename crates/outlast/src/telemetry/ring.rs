//! The latest calls, in memory.

use super::Recorded;
use outlast_model::record::{AttemptRecord, CallRecord, LeftOut};
use std::{collections::VecDeque, mem::size_of, sync::Arc};

/// A ring of the latest calls, bounded by number and by bytes; the oldest go first.
///
/// It has no index: a look-up is a person's, and may take some microseconds of scanning; an insertion is every call's.
#[derive(Debug)]
pub struct Ring {
    calls: VecDeque<(Arc<Recorded>, usize)>,
    calls_max: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Ring {
    /// An empty ring that holds at most so many calls of at most so many bytes together.
    pub fn new(calls_max: usize, bytes_max: usize) -> Self {
        Ring { calls: VecDeque::new(), calls_max, bytes: 0, bytes_max }
    }

    /// Adds a call and lets the oldest go until both limits hold again. A call larger than the ring is not kept.
    pub fn push(&mut self, call: Arc<Recorded>) {
        let weight = weight(&call.call);
        if weight > self.bytes_max {
            return;
        }
        self.bytes += weight;
        self.calls.push_back((call, weight));
        while self.calls.len() > self.calls_max || self.bytes > self.bytes_max {
            let Some((_, weight)) = self.calls.pop_front() else { break };
            self.bytes -= weight;
        }
    }

    /// The call of that id, if it is still here.
    pub fn find(&self, request_id: &str) -> Option<Arc<Recorded>> {
        self.newest().find(|recorded| recorded.call.request_id.as_str() == request_id).cloned()
    }

    /// Every call, newest first.
    pub fn newest(&self) -> impl Iterator<Item = &Arc<Recorded>> {
        self.calls.iter().rev().map(|(call, _)| call)
    }

    /// How many calls it holds.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// True if it holds none.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// How many bytes they take, by estimate.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a record takes in memory, by estimate: its parts and their text. Names are shared with the config and free.
fn weight(call: &CallRecord) -> usize {
    let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
    let codes: usize =
        call.attempts.iter().filter_map(|attempt| attempt.failure.as_ref()?.code.as_ref()).map(|code| code.len()).sum();
    size_of::<Recorded>()
        + 64 // the request id and the allocations' own books
        + call.trace_id.len()
        + text(&call.task_id)
        + call.run.as_ref().map_or(0, |run| run.as_str().len())
        + text(&call.tenant_hash)
        + text(&call.workflow_step)
        + call.planned.capacity() * size_of::<usize>() * 2
        + call.left_out.capacity() * size_of::<LeftOut>()
        + call.attempts.capacity() * size_of::<AttemptRecord>()
        + codes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixture::{plain, recorded};

    #[test]
    fn the_oldest_calls_go_when_there_are_too_many() {
        let mut ring = Ring::new(3, usize::MAX);
        for n in 0..5 {
            ring.push(recorded(plain(&format!("req_{n}"))));
        }
        let ids: Vec<_> = ring.newest().map(|recorded| recorded.call.request_id.to_string()).collect();
        assert_eq!(ids, ["req_4", "req_3", "req_2"]);
        assert!(ring.find("req_1").is_none() && ring.find("req_3").is_some());
    }

    #[test]
    fn its_bytes_are_bounded_and_given_back() {
        let one = weight(&plain("req_0"));
        let mut ring = Ring::new(1000, one * 4);
        for n in 0..100 {
            ring.push(recorded(plain(&format!("req_{n}"))));
            assert!(ring.bytes() <= one * 4);
        }
        assert_eq!(ring.len(), 4);
        let mut huge = plain("req_huge");
        huge.task_id = Some("x".repeat(one * 5).into());
        ring.push(recorded(huge));
        assert_eq!(ring.len(), 4, "a call larger than the ring pushes nothing out");
    }
}
