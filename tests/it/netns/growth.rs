//! A cluster that grows to five nodes and shrinks to three again while clients go on.

use std::collections::BTreeSet;

use reqwest::Method;

use super::{LIMIT, leader_of, own, scenario};
use crate::support::api::Api;
use crate::support::cluster::Cluster;
use crate::support::random::Random;
use crate::support::registers::Registers;
use crate::support::wait_for;

/// How many are there at first, and at the end.
const FEW: usize = 3;

#[test]
fn three_nodes_grow_to_five_and_shrink_without_their_leader_while_clients_go_on() {
    let test = "three_nodes_grow_to_five_and_shrink_without_their_leader_while_clients_go_on";
    scenario(&format!("{}::{test}", module_path!()), 5, |network| async move {
        let mut random = Random::announced(test);
        let mut cluster = Cluster::prepare_in(&network);
        cluster.set("PEAT_PROMOTE_AFTER_MS", "1000");
        let first: Vec<_> = cluster.nodes[..FEW].iter().map(|node| node.peer_address()).collect();
        let first = first.join(",");
        for (place, node) in cluster.nodes.iter_mut().enumerate() {
            node.unset("PEAT_INITIAL_PEERS");
            node.set(if place < FEW { "PEAT_INITIAL_PEERS" } else { "PEAT_JOIN" }, &first);
            if place < FEW {
                node.start();
            }
        }
        wait_voters(&cluster, &[1, 2, 3]).await;
        let registers = Registers::start(&cluster, &mut random).await;
        for node in [4, 5] {
            cluster.nodes[node - 1].start();
            wait_voters(&cluster, &(1..=node).collect::<Vec<_>>()).await;
            registers.progress(50, LIMIT).await;
        }

        let mut members = vec![1, 2, 3, 4, 5];
        while members.len() > FEW {
            // The one that leads, so that each removal is also a change of leaders.
            let (goes, _) = leader_of(&cluster, &members).await;
            let id = own(&cluster, goes).await.expect("it answers").id;
            members.retain(|node| *node != goes);
            let rest = Api::new(members.iter().map(|node| cluster.nodes[node - 1].url()).collect());
            wait_for("its removal", LIMIT, || async {
                let path = format!("/cluster/members/{id}");
                let answer = rest.send(Method::DELETE, &path, None, &[]).await?;
                // An answer that was lost is followed by one that says that it was removed.
                if matches!(answer.status, 200 | 409) { Ok(()) } else { Err(answer.body) }
            })
            .await;
            let status = cluster.nodes[goes - 1].wait_exit(LIMIT).await;
            assert_eq!(status.code(), Some(0), "{}", cluster.nodes[goes - 1].log_tail());
            wait_voters(&cluster, &members).await;
            registers.progress(50, LIMIT).await;
        }
        println!("nodes {members:?} are left");
        let gone: Vec<_> = (0..5).filter(|place| !members.contains(&(place + 1))).collect();
        registers.finish_without(&gone).await;
        cluster.wait_equal().await;
    });
}

/// Waits until each of these nodes sees exactly these as members, all of them voters.
async fn wait_voters(cluster: &Cluster, nodes: &[usize]) {
    let expected: BTreeSet<_> = nodes.iter().map(|node| cluster.nodes[node - 1].url()).collect();
    wait_for(&format!("the voters {nodes:?}"), LIMIT, || async {
        for node in nodes {
            let seen = cluster.api(node - 1).get_json("/cluster").await?;
            let rows = seen["nodes"].as_array().ok_or("no nodes")?;
            let voters: BTreeSet<_> = rows
                .iter()
                .filter(|row| row["voter"] == true)
                .filter_map(|row| row["address"].as_str().map(str::to_owned))
                .collect();
            let settled = seen["joint"] == false && rows.len() == nodes.len();
            if voters != expected || !settled {
                return Err(format!("node {node} sees {seen}"));
            }
        }
        Ok(())
    })
    .await;
}
