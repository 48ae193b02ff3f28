//! A read shows the state at its index exactly, and a linearizable one an index that contains all that
//! anybody was told before it began.
//!
//! Every answer carries its index in the one log, so linearizability needs no search: operations have
//! an order, and it remains to compare that order with real time and with the values.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant;
use crate::simulation::clients::register;
use crate::simulation::history::{Answer, Ask, History};
use crate::simulation::observe::{Meaning, Seen};

#[derive(Default)]
pub(super) struct Linearizable {
    /// By register: the values by the index that wrote them.
    registers: BTreeMap<String, BTreeMap<u64, String>>,
    /// Values that are in; a retried write is in the log twice and happens once.
    values: BTreeSet<String>,
    /// Committed entries below are in.
    end: u64,
}

impl Invariant for Linearizable {
    fn name(&self) -> &'static str {
        "linearizable reads"
    }

    fn check(&mut self, seen: &Seen, history: &History) -> Result<(), String> {
        let known_end = seen.known_end;
        for (index, committed) in seen.committed.range(self.end..known_end) {
            match &committed.meaning {
                Meaning::Create { register, value } => {
                    let writes = self.registers.entry(register.clone()).or_default();
                    if writes.is_empty() {
                        writes.insert(*index, value.clone());
                    }
                }
                Meaning::Write { register, value } if self.values.insert(value.clone()) => {
                    let writes = self.registers.entry(register.clone()).or_default();
                    writes.insert(*index, value.clone());
                }
                _ => {}
            }
        }
        self.end = known_end;
        for number in &history.answered {
            let operation = &history.operations[number];
            let Some(Answer::Registers { applied, values }) = &operation.answer else { continue };
            let demanded = match operation.ask {
                Ask::ReadStale { min_index } => min_index,
                _ => operation.told_before,
            };
            if *applied < demanded {
                return Err(format!(
                    "a read on node {} shows index {applied}, it had to show {demanded} at least",
                    operation.place
                ));
            }
            if *applied >= known_end {
                return Err(format!(
                    "a read on node {} shows index {applied}, which nobody has committed",
                    operation.place
                ));
            }
            for (number, value) in values.iter().enumerate() {
                let name = register(number).to_string();
                let writes = self.registers.get(&name);
                let last = writes.and_then(|writes| writes.range(..=*applied).next_back());
                let expected = last.map(|(_, value)| value.as_str());
                if value.as_deref() != expected {
                    return Err(format!(
                        "a read on node {} at index {applied} shows {name} as {value:?}, it was \
                         {expected:?}",
                        operation.place
                    ));
                }
            }
        }
        Ok(())
    }
}
