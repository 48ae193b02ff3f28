//! What clients do: writes with values that are told apart, linearizable and stale reads.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use peat_gateway_state::command::{Idempotency, QuotaChanges, UpdateOrganization};
use peat_gateway_state::ids::{Hash32, OrgId};
use peat_gateway_state::{Actor, Command, Envelope, Outcome, query};

use super::history::{Answer, Ask, History, Number};
use super::host::Shared;
use crate::error::ProposeError;
use crate::handle::{Consistency, Handle, View};

/// How long a client waits for one answer.
const TIMEOUT: Duration = Duration::from_millis(2_500);
/// How often a client asks again for what it doesn't know.
const TRIES: u32 = 3;

/// The organisation whose display name is a register.
pub(super) fn register(number: usize) -> OrgId {
    OrgId::from_trusted(format!("register-{number}"))
}

pub(super) fn actor() -> Actor {
    Actor { principal: "client".to_owned(), source: String::new(), request_id: String::new() }
}

fn write(register_number: usize, value: &str, retries: bool) -> Envelope {
    let command = Command::UpdateOrganization(UpdateOrganization {
        org_id: register(register_number),
        expected_revision: None,
        display_name: Some(value.to_owned()),
        quotas: QuotaChanges::default(),
    });
    let idempotency =
        retries.then(|| Idempotency { key: value.to_owned(), request_digest: Hash32([7; 32]) });
    Envelope::new(actor(), command).with_idempotency(idempotency)
}

/// The registers as a view has them.
pub(super) fn registers(view: &View, count: usize) -> Vec<Option<String>> {
    let name = |number| {
        let found = query::organization(view, &register(number)).expect("a view can be read");
        found.map(|organization| organization.display_name)
    };
    (0..count).map(name).collect()
}

/// Begins an operation at a host; it stays unanswered where no node runs.
pub(super) fn begin(
    host: &Shared,
    registers_count: usize,
    ask: Ask,
    history: &Rc<RefCell<History>>,
) -> Number {
    let place = host.borrow().place;
    let number = history.borrow_mut().begin(place, ask.clone());
    let host = host.borrow();
    let Some(running) = &host.running else {
        history.borrow_mut().end(number, Answer::Nothing("no node runs".to_owned()));
        return number;
    };
    let (handle, history) = (running.handle.clone(), history.clone());
    host.run(async move {
        let answer = ask_node(&handle, registers_count, ask).await;
        history.borrow_mut().end(number, answer);
    });
    number
}

async fn ask_node(handle: &Handle, registers_count: usize, ask: Ask) -> Answer {
    let consistency = match ask {
        Ask::Write { register, value, retries } => {
            return propose(handle, &write(register, &value, retries), retries).await;
        }
        Ask::Read => Consistency::default(),
        Ask::ReadStale { min_index } => Consistency { stale: true, max_staleness: None, min_index },
    };
    match handle.read(consistency, TIMEOUT).await {
        Ok(view) => Answer::Registers {
            applied: view.applied_index(),
            values: registers(&view, registers_count),
        },
        Err(error) => Answer::NoRead(error.to_string()),
    }
}

async fn propose(handle: &Handle, envelope: &Envelope, retries: bool) -> Answer {
    let mut unknown = None;
    for _ in 0..if retries { TRIES } else { 1 } {
        match handle.propose(envelope, TIMEOUT).await {
            Ok(committed) => {
                return match committed.outcome {
                    Outcome::Refused(refusal) => Answer::Refused(refusal.code),
                    _ => Answer::Written {
                        index: committed.index,
                        applied_index: committed.applied_index,
                    },
                };
            }
            Err(ProposeError::Unknown(reason)) => unknown = Some(reason),
            Err(error) if unknown.is_none() => return Answer::Nothing(error.to_string()),
            Err(_) => {}
        }
    }
    Answer::Unknown(unknown.unwrap_or_default())
}
