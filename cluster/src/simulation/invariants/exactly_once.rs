//! A write that its client didn't ask for again is in the log once.

use std::collections::BTreeSet;

use super::Invariant;
use crate::simulation::history::{Ask, History};
use crate::simulation::observe::{Meaning, Seen};

#[derive(Default)]
pub(super) struct ExactlyOnce {
    values: BTreeSet<String>,
    /// Values whose clients may ask again.
    retried: BTreeSet<String>,
    /// Operations below were looked at.
    next: u64,
    /// Committed entries below were looked at.
    end: u64,
}

impl Invariant for ExactlyOnce {
    fn name(&self) -> &'static str {
        "exactly once"
    }

    fn check(&mut self, seen: &Seen, history: &History) -> Result<(), String> {
        for (number, operation) in history.operations.range(self.next..) {
            if let Ask::Write { value, retries: true, .. } = &operation.ask {
                self.retried.insert(value.clone());
            }
            self.next = number + 1;
        }
        for (index, committed) in seen.committed.range(self.end..seen.known_end) {
            if let Meaning::Write { value, .. } = &committed.meaning
                && !self.values.insert(value.clone())
                && !self.retried.contains(value)
            {
                return Err(format!(
                    "{value} was asked for once, and is committed again at {index}"
                ));
            }
        }
        self.end = seen.known_end;
        Ok(())
    }
}
