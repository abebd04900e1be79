//! Trains the global models beside the steps: on the executor that the environment provides, which is at once in the simulator.

use crate::env::Offload;
use crate::forecast::global::{Globals, Trained};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

/// The training that is under way, if one is. Ends it when dropped: an agent that is told to stop does not wait for it.
#[derive(Debug)]
pub(super) struct InTraining {
    offload: Offload,
    wanted: Arc<AtomicBool>,
    trained: Option<oneshot::Receiver<Option<Trained>>>,
}

impl InTraining {
    pub(super) fn new(offload: Offload) -> Self {
        Self { offload, wanted: Arc::new(AtomicBool::new(true)), trained: None }
    }

    /// Installs what has been trained, and begins what is due.
    pub(super) fn drive(&mut self, globals: &mut Globals) {
        if let Some(waiting) = &mut self.trained {
            match waiting.try_recv() {
                Ok(trained) => {
                    if let Some(trained) = trained {
                        globals.install(trained);
                        tracing::info!(steps = globals.trained_on(), "global models were trained");
                    }
                    self.trained = None;
                }
                Err(oneshot::error::TryRecvError::Empty) => return,
                // It has panicked, and was reported by the runtime; the next one may do better.
                Err(oneshot::error::TryRecvError::Closed) => self.trained = None,
            }
        }
        let Some(training) = globals.due() else { return };
        let (done, trained) = oneshot::channel();
        let (offload, wanted) = (self.offload, self.wanted.clone());
        tokio::spawn(async move {
            let trained = offload.run(move || training.run_while(|| wanted.load(Ordering::Relaxed))).await;
            // Nobody waits for it any more: the agent has stopped.
            let _ = done.send(trained);
        });
        self.trained = Some(trained);
    }
}

impl Drop for InTraining {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::global::{GlobalConfig, Kind};
    use tradewind_protocol::{RegionId, SeriesKey, StepIndex};

    fn key() -> SeriesKey {
        let region = |name| RegionId::new(name).unwrap();
        SeriesKey {
            tenant: Default::default(),
            source: region("a"),
            destination: region("b"),
            service: Default::default(),
            transaction_type: Default::default(),
        }
    }

    #[tokio::test]
    async fn what_is_due_is_trained_beside_the_steps_and_installed_at_the_next() {
        let config = GlobalConfig::of(vec![Kind::Boosting], 4);
        let (mut globals, mut training, key) = (Globals::new(config, 2, 4), InTraining::new(Offload::Inline), key());
        for at in 0..200_i64 {
            globals.close(StepIndex(at), [(&key, 10.0 + (at % 4) as f64)]);
            training.drive(&mut globals);
            tokio::task::yield_now().await;
        }
        // Two times 48 recent values and the horizon are 98 steps; half as many more are 147.
        assert_eq!(globals.trained_on(), Some(147));
    }

    #[tokio::test]
    async fn a_training_ends_with_whoever_wanted_it() {
        let (training, wanted) = {
            let training = InTraining::new(Offload::Inline);
            let wanted = training.wanted.clone();
            (training, wanted)
        };
        assert!(wanted.load(Ordering::Relaxed));
        drop(training);
        assert!(!wanted.load(Ordering::Relaxed));
    }
}
