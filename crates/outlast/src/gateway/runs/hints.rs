//! Who waits for work, and how a waiting claim hears that there is some. A hint wakes one waiter; one that cannot use it
//! passes it on, so that each hears of each hint at most once and a crowd is not woken for one run. Hints are lost with
//! the process and know nothing of other processes: the store is asked again anyway.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;

/// The waiters of all queues.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Only queues that somebody waits for.
    queues: Mutex<HashMap<Arc<str>, Vec<Arc<Ear>>>>,
    /// The number of the last hint.
    last: AtomicU64,
}

/// What one waiter has heard.
#[derive(Debug, Default)]
struct Ear {
    /// The number of the last hint it was given.
    heard: AtomicU64,
    /// That of one it has not begun to act upon; 0: none.
    pending: AtomicU64,
    /// That of the one it acts upon; 0: none.
    acting: AtomicU64,
    called: Notify,
}

impl Hints {
    /// There may be work in this queue.
    pub(super) fn nudge(&self, queue: &str) {
        let hint = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.pass(queue, hint);
    }

    /// Everybody who waits for this is woken.
    pub(super) fn nudge_all(&self, queue: &str) {
        let hint = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        for ear in self.lock().get(queue).into_iter().flatten() {
            ear.tell(hint);
        }
    }

    /// Whether anybody waits for anything.
    pub(super) fn anybody_waits(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Waits for work of these queues.
    pub(super) fn listen(self: &Arc<Self>, queues: &[Arc<str>]) -> Waiter {
        let ear = Arc::new(Ear { heard: AtomicU64::new(self.last.load(Ordering::Relaxed)), ..Ear::default() });
        let mut waiting = self.lock();
        for queue in queues {
            waiting.entry(queue.clone()).or_default().push(ear.clone());
        }
        drop(waiting);
        Waiter { hints: self.clone(), queues: queues.to_vec(), ear }
    }

    /// Tells the one that has waited longest of those who have not heard this hint.
    fn pass(&self, queue: &str, hint: u64) {
        let waiting = self.lock();
        let fresh = |ear: &&Arc<Ear>| ear.heard.load(Ordering::Relaxed) < hint;
        if let Some(ear) = waiting.get(queue).and_then(|ears| ears.iter().find(fresh)) {
            ear.tell(hint);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Vec<Arc<Ear>>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ear {
    fn tell(&self, hint: u64) {
        self.heard.fetch_max(hint, Ordering::Relaxed);
        self.pending.fetch_max(hint, Ordering::Relaxed);
        self.called.notify_one();
    }
}

/// Somebody who waits. Dropped, it waits no more, and a hint it did not use goes to the next.
#[derive(Debug)]
pub(super) struct Waiter {
    hints: Arc<Hints>,
    queues: Vec<Arc<str>>,
    ear: Arc<Ear>,
}

impl Waiter {
    /// Until there is a hint.
    pub(super) async fn hinted(&self) {
        self.ear.called.notified().await;
        self.ear.acting.store(self.ear.pending.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// There was nothing in it for this one: the next shall look.
    pub(super) fn pass_on(&self) {
        self.pass(&self.ear.acting);
    }

    /// It found what the hint was about.
    pub(super) fn found(&self) {
        self.ear.acting.store(0, Ordering::Relaxed);
    }

    fn pass(&self, hint: &AtomicU64) {
        let hint = hint.swap(0, Ordering::Relaxed);
        if hint > 0 {
            self.queues.iter().for_each(|queue| self.hints.pass(queue, hint));
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.hints.lock();
        for queue in &self.queues {
            if let Some(ears) = waiting.get_mut(queue) {
                ears.retain(|ear| !Arc::ptr_eq(ear, &self.ear));
                if ears.is_empty() {
                    waiting.remove(queue);
                }
            }
        }
        drop(waiting);
        self.pass(&self.ear.acting);
        self.pass(&self.ear.pending);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Waker},
    };

    fn is_told(waiter: &Waiter) -> bool {
        pin!(waiter.hinted()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_hint_wakes_one_and_goes_on_until_everybody_has_looked() {
        let hints = Arc::new(Hints::default());
        let queues: [Arc<str>; 2] = ["a".into(), "b".into()];
        let (one, two) = (hints.listen(&queues), hints.listen(&queues[..1]));
        hints.nudge("a");
        assert!(is_told(&one) && !is_told(&two));
        one.pass_on();
        assert!(is_told(&two) && !is_told(&one));
        two.pass_on();
        assert!(!is_told(&one), "it has looked");
        hints.nudge("b");
        assert!(is_told(&one) && !is_told(&two));
        hints.nudge("elsewhere");
        assert!(!is_told(&one) && !is_told(&two));
    }

    #[test]
    fn a_waiter_that_leaves_leaves_its_hint_to_the_next() {
        let hints = Arc::new(Hints::default());
        let queues: [Arc<str>; 1] = ["a".into()];
        let (one, two) = (hints.listen(&queues), hints.listen(&queues));
        hints.nudge("a");
        drop(one);
        assert!(is_told(&two));
        two.found();
        drop(two);
        assert!(!hints.anybody_waits());
    }

    #[test]
    fn two_hints_find_two_waiters_though_the_first_is_told_both() {
        let hints = Arc::new(Hints::default());
        let queues: [Arc<str>; 1] = ["a".into()];
        let (one, two) = (hints.listen(&queues), hints.listen(&queues));
        hints.nudge("a");
        assert!(is_told(&one));
        hints.nudge("a");
        one.found();
        drop(one);
        assert!(is_told(&two));
    }
}
