//! Nodes that applied the same index hold the same state.

use std::collections::BTreeMap;

use peat_gateway_state::ids::Hash32;

use super::Invariant;
use crate::simulation::history::History;
use crate::simulation::observe::Seen;

#[derive(Default)]
pub(super) struct StateMachineSafety {
    /// By applied index: the state's hash, and the node that showed it first.
    states: BTreeMap<u64, (Hash32, usize)>,
}

impl Invariant for StateMachineSafety {
    fn name(&self) -> &'static str {
        "state machine safety"
    }

    fn check(&mut self, seen: &Seen, _: &History) -> Result<(), String> {
        for node in seen.running() {
            let Some(hash) = node.state_hash else { continue };
            let (known, first) = *self.states.entry(node.applied).or_insert((hash, node.place));
            if known != hash {
                return Err(format!(
                    "at index {} the state is {known} on node {first} and {hash} on node {}",
                    node.applied, node.place
                ));
            }
        }
        Ok(())
    }
}
