//! Nodes that go and come back, one after the other.

use super::{LIMIT, finish, scenario, start};
use crate::support::random::Random;
use crate::support::registers::Registers;

/// Times that every node is restarted.
const ROUNDS: usize = 2;

#[test]
fn every_node_is_restarted_in_turn_and_clients_go_on() {
    let test = "every_node_is_restarted_in_turn_and_clients_go_on";
    scenario(&format!("{}::{test}", module_path!()), 3, |network| async move {
        let mut random = Random::announced(test);
        let mut cluster = start(&network, |_| {}).await;
        let registers = Registers::start(&cluster, &mut random).await;
        for _ in 0..ROUNDS {
            for node in 0..cluster.nodes.len() {
                registers.progress(100, LIMIT).await;
                let status = cluster.nodes[node].stop().expect("it ran");
                assert!(status.success(), "node {}: {status}", node + 1);
                // What a rolling upgrade waits for.
                registers.progress(20, LIMIT).await;
                cluster.nodes[node].start();
                cluster.wait_ready().await;
            }
        }
        let totals = finish(&cluster, registers).await;
        assert!(totals.written > 100 * ROUNDS * 3, "{totals:?}");
    });
}
