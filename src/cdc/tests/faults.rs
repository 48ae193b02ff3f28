//! Destinations that fail on purpose.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{MemoryJournal, Random};
use crate::cdc::sinks::{Delivery, Destination, Failure, FailureClass, Receipt, Shape};

/// Fails some attempts before and some after the real destination took them, and tells the journal
/// what really was acknowledged.
pub(crate) struct Flaky {
    pub(crate) inner: Arc<dyn Destination>,
    pub(crate) journal: Arc<MemoryJournal>,
    pub(crate) random: Mutex<Random>,
    /// Per cent of attempts that fail before, and as many after.
    pub(crate) per_cent: u64,
}

impl Destination for Flaky {
    fn shape(&self) -> Shape {
        // Small batches, so that there are many attempts to fail.
        let shape = self.inner.shape();
        Shape { batch_events: shape.batch_events.min(9), ..shape }
    }

    fn deliver<'a>(&'a self, batch: &'a [Delivery]) -> BoxFuture<'a, Result<Receipt, Failure>> {
        let (dice, class) = {
            let mut random = self.random.lock().unwrap();
            let classes = [FailureClass::Transient, FailureClass::Rejected, FailureClass::Down];
            (random.below(100), classes[random.below(3) as usize])
        };
        Box::pin(async move {
            if dice < self.per_cent {
                return Err(Failure::new(class, "injected before"));
            }
            let receipt = self.inner.deliver(batch).await?;
            if dice < 2 * self.per_cent {
                return Err(Failure::new(class, "injected after"));
            }
            self.journal.acknowledged(batch.iter().map(|delivery| delivery.sequence));
            Ok(receipt)
        })
    }
}

type Script =
    Box<dyn Fn(&Delivery, usize) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// Answers as a script says, and records what arrived.
pub(crate) struct Scripted {
    shape: Shape,
    /// Gets the delivery and how often it was tried before.
    script: Script,
    tries: Mutex<BTreeMap<u64, usize>>,
    /// Every attempt, and when it began.
    pub(crate) attempts: Mutex<Vec<(u64, Instant)>>,
    /// Sequences that were acknowledged, in the order in which they were.
    pub(crate) delivered: Mutex<Vec<u64>>,
    pub(crate) running: Mutex<(usize, usize)>,
}

impl Scripted {
    pub(crate) fn new(
        script: impl Fn(&Delivery, usize) -> BoxFuture<'static, Result<(), Failure>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            shape: Shape { lanes: 1024, attempts_max: 64, batch_events: 1, batch_bytes: 1 << 20 },
            script: Box::new(script),
            tries: Mutex::default(),
            attempts: Mutex::default(),
            delivered: Mutex::default(),
            running: Mutex::default(),
        }
    }
}

impl Destination for Scripted {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn deliver<'a>(&'a self, batch: &'a [Delivery]) -> BoxFuture<'a, Result<Receipt, Failure>> {
        Box::pin(async move {
            let delivery = &batch[0];
            let before = {
                let mut tries = self.tries.lock().unwrap();
                let count = tries.entry(delivery.sequence).or_default();
                *count += 1;
                *count - 1
            };
            self.attempts.lock().unwrap().push((delivery.sequence, Instant::now()));
            {
                let (now, most) = &mut *self.running.lock().unwrap();
                *now += 1;
                *most = (*most).max(*now);
            }
            let answer = (self.script)(delivery, before).await;
            self.running.lock().unwrap().0 -= 1;
            answer?;
            self.delivered.lock().unwrap().push(delivery.sequence);
            Ok(Receipt::default())
        })
    }
}
