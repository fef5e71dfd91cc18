//! How the fleet wakes a call that waits or is overdue.

use outlast_engine::CallId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Calls alive now. Bounded by the engine's `max_in_flight` plus those being refused.
#[derive(Default)]
pub(super) struct Wakes(Mutex<HashMap<CallId, Arc<Notify>>>);

impl Wakes {
    pub(super) fn insert(&self, call: CallId, wake: Arc<Notify>) {
        self.lock().insert(call, wake);
    }

    pub(super) fn remove(&self, call: CallId) {
        self.lock().remove(&call);
    }

    /// Wakes it, now or when it next waits. A call that has ended is nobody.
    pub(super) fn wake(&self, call: CallId) {
        if let Some(wake) = self.lock().get(&call) {
            wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CallId, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
