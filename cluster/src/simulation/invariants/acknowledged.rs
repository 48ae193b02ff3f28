//! An acknowledged write is committed at the index that its client was told, after everything that
//! anybody was told before; a write that "did not happen" is nowhere.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::simulation::history::{Answer, Ask, History};
use crate::simulation::observe::{Meaning, Seen};

#[derive(Default)]
pub(super) struct Acknowledged {
    /// Values whose clients were told that nothing happened.
    denied: BTreeSet<String>,
    /// Where committed values are.
    committed: BTreeMap<String, u64>,
    /// Committed entries below were looked at.
    end: u64,
}

impl Invariant for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged writes"
    }

    fn check(&mut self, seen: &Seen, history: &History) -> Result<(), String> {
        let known_end = seen.known_end;
        for (index, committed) in seen.committed.range(self.end..known_end) {
            if let Meaning::Write { value, .. } = &committed.meaning {
                self.committed.entry(value.clone()).or_insert(*index);
                self.check_denied(value)?;
            }
        }
        self.end = known_end;
        for number in &history.answered {
            let operation = &history.operations[number];
            let Ask::Write { register, value, .. } = &operation.ask else { continue };
            match &operation.answer {
                Some(Answer::Written { index, .. }) => {
                    let there = seen.committed.get(index).map(|committed| &committed.meaning);
                    if !matches!(there, Some(Meaning::Write { value: found, .. }) if found == value)
                    {
                        return Err(format!(
                            "{value} of register {register} was acknowledged at index {index}, \
                             where {there:?} is committed"
                        ));
                    }
                    if *index <= operation.told_before {
                        return Err(format!(
                            "{value} was acknowledged at index {index}, but {} had been told to \
                             somebody before it was asked for",
                            operation.told_before
                        ));
                    }
                }
                Some(Answer::Nothing(_)) => {
                    self.denied.insert(value.clone());
                    self.check_denied(value)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Acknowledged {
    fn check_denied(&self, value: &str) -> Result<(), String> {
        match self.committed.get(value) {
            Some(index) if self.denied.contains(value) => Err(format!(
                "the client of {value} was told that nothing happened, but it is committed at {index}"
            )),
            _ => Ok(()),
        }
    }
}
