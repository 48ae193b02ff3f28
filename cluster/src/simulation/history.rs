//! What clients asked, when, and what they were told.

use std::collections::BTreeMap;

use peat_gateway_state::ids::Epoch;

/// An operation's number.
pub(super) type Number = u64;

/// What a client asks for.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// Gives a register a value that no other write gives.
    Write {
        register: usize,
        value: String,
        /// Whether the client tries again, with one idempotency key, while the outcome is unknown.
        retries: bool,
    },
    /// Reads all registers, as new as every answer that anybody had before.
    Read,
    /// Reads what the node has, at least up to an index.
    ReadStale { min_index: u64 },
}

/// What it was told. Reasons are for the trace.
#[expect(dead_code, reason = "the trace prints all of it")]
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The write is at an index, and the caller may demand `applied_index` of later reads.
    Written { index: u64, applied_index: u64 },
    /// The state refused the write; nothing happened.
    Refused(String),
    /// Nothing happened.
    Nothing(String),
    /// It may have happened.
    Unknown(String),
    /// The registers at an applied index.
    Registers { applied: u64, values: Vec<Option<String>> },
    /// No answer to a read.
    NoRead(String),
}

/// An operation, as the client sees it.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) place: usize,
    pub(super) ask: Ask,
    /// The newest index that anybody had been told of when it began.
    pub(super) told_before: u64,
    pub(super) answer: Option<Answer>,
}

/// Leader work, as its worker was answered.
#[derive(Clone, Debug)]
pub(super) struct LeaderWork {
    pub(super) place: usize,
    pub(super) epoch: Epoch,
    pub(super) index: u64,
    /// The state took it.
    pub(super) counted: bool,
}

/// Everything that clients and workers know.
#[derive(Default)]
pub(super) struct History {
    pub(super) operations: BTreeMap<Number, Operation>,
    /// Operations that were answered since the last look.
    pub(super) answered: Vec<Number>,
    pub(super) leader_work: Vec<LeaderWork>,
    /// The newest index that anybody was told of.
    pub(super) told: u64,
    next: Number,
}

impl History {
    pub(super) fn begin(&mut self, place: usize, ask: Ask) -> Number {
        let number = self.next;
        self.next += 1;
        let operation = Operation { place, ask, told_before: self.told, answer: None };
        self.operations.insert(number, operation);
        number
    }

    pub(super) fn end(&mut self, number: Number, answer: Answer) {
        match (&answer, &self.operations[&number].ask) {
            (Answer::Written { index, applied_index }, _) => {
                self.told = self.told.max(*index).max(*applied_index);
            }
            // Reading the past tells nobody what is newest.
            (Answer::Registers { applied, .. }, Ask::Read) => self.told = self.told.max(*applied),
            _ => {}
        }
        self.operations.entry(number).and_modify(|operation| operation.answer = Some(answer));
        self.answered.push(number);
    }
}
