//! Keeps a run's lease while it is driven, and hears what is said of it meanwhile.

use super::super::super::Shared;
use crate::clock;
use outlast_store::{BeatRun, Beaten, Epoch, RunRef};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// More news than there are kinds of it is never kept.
const NEWS_MAX: usize = 4;

/// News of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is to be cancelled.
    Cancel,
    /// The claim is somebody else's.
    Lost,
    /// The process is on its way out.
    Drain,
}

/// Beats for as long as it lives.
pub(super) struct Keeper {
    news: mpsc::Receiver<Said>,
    task: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn start(
        shared: Arc<Shared>,
        run: RunRef,
        epoch: Epoch,
        lease: Duration,
        stopping: watch::Receiver<bool>,
    ) -> Keeper {
        let (tell, news) = mpsc::channel(NEWS_MAX);
        Keeper { news, task: tokio::spawn(keep(shared, BeatRun { run, epoch, lease }, stopping, tell)) }
    }

    /// What was said since the last time.
    pub(super) fn news(&mut self) -> Vec<Said> {
        std::iter::from_fn(|| self.news.try_recv().ok()).collect()
    }

    /// Waits for news.
    pub(super) async fn hear(&mut self) -> Said {
        match self.news.recv().await {
            Some(said) => said,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(shared: Arc<Shared>, beat: BeatRun, mut stopping: watch::Receiver<bool>, tell: mpsc::Sender<Said>) {
    let (mut cancelling, mut draining) = (false, false);
    loop {
        tokio::select! {
            () = clock::sleep(beat.lease / 3) => {}
            // Who would say so is gone: the process is at its end.
            stops = async { stopping.wait_for(|stops| *stops).await.is_ok() }, if !draining => {
                draining = true;
                if stops && tell.send(Said::Drain).await.is_err() {
                    return;
                }
                continue;
            }
        }
        // One that is not answered is made up for by the next.
        match shared.stored(shared.store.beat_run(beat.clone())).await {
            Ok(Beaten::Cancel) if !cancelling => {
                cancelling = true;
                if tell.send(Said::Cancel).await.is_err() {
                    return;
                }
            }
            Ok(Beaten::Lost) => {
                let _ = tell.send(Said::Lost).await;
                return;
            }
            Ok(Beaten::Held | Beaten::Cancel | Beaten::Drain) | Err(_) => {}
        }
    }
}
