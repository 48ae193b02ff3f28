//! What clients saw, and whether one order of events explains it (INV-2).
//!
//! Every answer names the log index that it reflects, and the log is an order of all writes. So a
//! history is checked in the time that sorting takes: what is read at an index must be what the
//! writes up to there leave, and an operation that began after another had ended must not have a
//! lower index. A write whose outcome is unknown may have happened at any time after it began, or never; a
//! refused one never.

use std::collections::{BTreeMap, BTreeSet};

/// Nanoseconds since the history began, or any other clock that all clients share.
pub type Moment = u128;

/// What one client did and saw.
#[derive(Clone, Debug)]
pub struct Operation {
    /// When it was sent.
    pub began: Moment,
    /// When its answer was there.
    pub ended: Moment,
    /// Which register.
    pub register: usize,
    /// What was done.
    pub action: Action,
}

/// What was done, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A write of a value that nobody else ever writes, acknowledged at this index.
    Wrote(String, u64),
    /// A write that may have happened.
    Unknown(String),
    /// A write that was refused.
    Refused(String),
    /// A linearizable read: the value, and the index that it reflects.
    Read(String, u64),
}

impl Operation {
    fn index(&self) -> Option<u64> {
        match &self.action {
            Action::Wrote(_, index) | Action::Read(_, index) => Some(*index),
            Action::Unknown(_) | Action::Refused(_) => None,
        }
    }
}

/// What a history contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Acknowledged writes.
    pub written: usize,
    /// Writes of unknown outcome.
    pub unknown: usize,
    /// Refused writes.
    pub refused: usize,
    /// Reads.
    pub read: usize,
}

/// Checks a history; `initial` is what every register held before.
///
/// # Errors
/// The first thing that no order explains.
pub fn check(operations: &[Operation], initial: &str) -> Result<Totals, String> {
    let mut totals = Totals::default();
    for operation in operations {
        match operation.action {
            Action::Wrote(..) => totals.written += 1,
            Action::Unknown(_) => totals.unknown += 1,
            Action::Refused(_) => totals.refused += 1,
            Action::Read(..) => totals.read += 1,
        }
    }
    check_time(operations)?;
    let mut registers: BTreeMap<usize, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        registers.entry(operation.register).or_default().push(operation);
    }
    for (register, operations) in registers {
        check_register(&operations, initial)
            .map_err(|error| format!("register {register}: {error}"))?;
    }
    Ok(totals)
}

/// Nothing that began later has a lower index; no two writes have the same.
fn check_time(operations: &[Operation]) -> Result<(), String> {
    let mut by_end: Vec<_> = operations.iter().filter(|o| o.index().is_some()).collect();
    let mut by_begin = by_end.clone();
    by_end.sort_by_key(|operation| operation.ended);
    by_begin.sort_by_key(|operation| operation.began);
    let mut ended = by_end.into_iter().peekable();
    let mut newest: Option<&Operation> = None;
    for operation in by_begin {
        while let Some(before) = ended.next_if(|before| before.ended < operation.began) {
            if newest.is_none_or(|newest| newest.index() < before.index()) {
                newest = Some(before);
            }
        }
        let Some(newest) = newest else { continue };
        let back = match operation.action {
            Action::Wrote(..) => operation.index() <= newest.index(),
            _ => operation.index() < newest.index(),
        };
        if back {
            return Err(format!("went back in time: after {newest:?} came {operation:?}"));
        }
    }
    let mut indexes = BTreeSet::new();
    for operation in operations {
        if let Action::Wrote(_, index) = operation.action
            && !indexes.insert(index)
        {
            return Err(format!("two writes at one index: {operation:?}"));
        }
    }
    Ok(())
}

/// Goes through writes and reads by index, and keeps what the register holds.
fn check_register(operations: &[&Operation], initial: &str) -> Result<(), String> {
    let mut acknowledged = BTreeSet::from([initial]);
    let mut began: BTreeMap<&str, Moment> = BTreeMap::new();
    // A read at the index of a write comes after it.
    let mut events = Vec::new();
    for operation in operations {
        match &operation.action {
            Action::Wrote(value, index) => {
                acknowledged.insert(value);
                events.push((*index, false, value.as_str(), *operation));
            }
            Action::Unknown(value) => {
                began.insert(value, operation.began);
            }
            Action::Refused(_) => {}
            Action::Read(value, index) => events.push((*index, true, value.as_str(), *operation)),
        }
    }
    events.sort_by_key(|(index, is_read, ..)| (*index, *is_read));
    let mut holds = initial;
    let mut overwritten = BTreeSet::new();
    for (_, is_read, value, operation) in events {
        if holds == value {
            continue;
        }
        if is_read {
            if acknowledged.contains(value) {
                return Err(format!("{holds} was written by then: {operation:?}"));
            }
            if overwritten.contains(value) {
                return Err(format!("a value that was overwritten came back: {operation:?}"));
            }
            match began.get(value) {
                Some(began) if *began <= operation.ended => {}
                Some(_) => return Err(format!("read before it was written: {operation:?}")),
                None => return Err(format!("nobody wrote that, or it was refused: {operation:?}")),
            }
        }
        overwritten.insert(holds);
        holds = value;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(began: Moment, ended: Moment, action: Action) -> Operation {
        Operation { began, ended, register: 0, action }
    }

    fn wrote(value: &str, index: u64) -> Action {
        Action::Wrote(value.to_owned(), index)
    }

    fn read(value: &str, index: u64) -> Action {
        Action::Read(value.to_owned(), index)
    }

    fn refused(history: Vec<Operation>, because: &str) {
        let error = check(&history, "0").expect_err("this history has a fault");
        assert!(error.contains(because), "{error}");
    }

    #[test]
    fn a_history_that_an_order_explains_is_accepted() {
        let unknown = Action::Unknown("b".to_owned());
        let history = vec![
            operation(0, 1, read("0", 4)),
            operation(2, 5, wrote("a", 5)),
            operation(3, 4, read("a", 5)),
            operation(6, 7, unknown),
            operation(8, 9, read("a", 5)),
            operation(10, 11, read("b", 7)),
            operation(12, 13, wrote("c", 9)),
            operation(14, 15, Action::Refused("d".to_owned())),
            operation(16, 17, read("c", 9)),
        ];
        let totals = check(&history, "0").expect("an order explains it");
        assert_eq!(totals, Totals { written: 2, unknown: 1, refused: 1, read: 5 });
    }

    #[test]
    fn every_kind_of_fault_in_a_history_is_found() {
        let a = || operation(0, 1, wrote("a", 5));
        let b = || operation(2, 3, wrote("b", 6));
        refused(vec![a(), operation(2, 3, read("0", 4))], "went back in time");
        refused(vec![a(), operation(2, 3, read("0", 5))], "a was written by then");
        refused(vec![a(), b(), operation(4, 5, read("a", 6))], "b was written by then");
        refused(vec![a(), operation(2, 3, wrote("b", 4))], "went back in time");
        refused(vec![a(), operation(0, 9, wrote("b", 5))], "two writes at one index");
        let never = operation(4, 5, Action::Refused("x".to_owned()));
        refused(vec![a(), never, operation(6, 7, read("x", 7))], "nobody wrote that");
        let late = operation(9, 10, Action::Unknown("x".to_owned()));
        refused(vec![a(), late, operation(6, 7, read("x", 7))], "before it was written");
        // A write of unknown outcome that somebody saw has happened.
        let seen = || {
            let unknown = operation(2, 20, Action::Unknown("x".to_owned()));
            vec![a(), unknown, operation(3, 4, read("x", 7))]
        };
        refused([seen(), vec![operation(5, 6, read("a", 8))]].concat(), "x was written by then");
        let over = vec![operation(5, 6, wrote("b", 8)), operation(7, 8, read("x", 9))];
        refused([seen(), over].concat(), "came back");
        let two = vec![operation(3, 4, read("a", 7))];
        refused([seen(), two].concat(), "x was written by then");
    }
}
