//! First starts that go wrong: one cluster comes of it, or none.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{LIMIT, finish, hold, own, scenario, start};
use crate::support::cluster::Cluster;
use crate::support::net::Network;
use crate::support::random::Random;
use crate::support::registers::Registers;
use crate::support::wait_for;

/// The clusters that running nodes say they belong to.
async fn clusters(cluster: &Cluster) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for node in 0..cluster.nodes.len() {
        if let Ok(seen) = cluster.api(node).get_json("/cluster").await
            && seen["leader"].is_string()
            && let Some(id) = seen["cluster_id"].as_str()
        {
            ids.insert(id.to_owned());
        }
    }
    ids
}

/// Starts nodes that don't all see each other: no part may make a cluster, and all make one when they do.
async fn one_cluster_after_healing(network: &Network, mut cluster: Cluster, random: &mut Random) {
    cluster.start_all();
    hold(|| async {
        assert_eq!(clusters(&cluster).await, BTreeSet::new(), "a part made a cluster");
    })
    .await;
    network.heal();
    cluster.wait_ready().await;
    assert_eq!(clusters(&cluster).await.len(), 1);
    let registers = Registers::start(&cluster, random).await;
    finish(&cluster, registers).await;
}

#[test]
fn halves_that_do_not_see_each_other_at_first_start_make_one_cluster_later() {
    let test = "halves_that_do_not_see_each_other_at_first_start_make_one_cluster_later";
    scenario(&format!("{}::{test}", module_path!()), 4, |network| async move {
        let mut random = Random::announced(test);
        let cluster = Cluster::prepare_in(&network);
        network.part(&[1, 2], &[3, 4]);
        one_cluster_after_healing(&network, cluster, &mut random).await;
    });
}

#[test]
fn first_members_whose_lists_differ_make_one_cluster_or_none() {
    let test = "first_members_whose_lists_differ_make_one_cluster_or_none";
    scenario(&format!("{}::{test}", module_path!()), 5, |network| async move {
        let mut cluster = Cluster::prepare_in(&network);
        let lists: [&[usize]; 5] = [&[1, 2, 3], &[1, 2, 3], &[3, 4, 5], &[3, 4, 5], &[3, 4, 5]];
        let addresses: Vec<_> = cluster.nodes.iter().map(|node| node.peer_address()).collect();
        for (node, list) in cluster.nodes.iter_mut().zip(lists) {
            let list: Vec<_> = list.iter().map(|other| addresses[other - 1].clone()).collect();
            node.set("PEAT_INITIAL_PEERS", &list.join(","));
        }
        cluster.start_all();
        let mut most = 0;
        let end = std::time::Instant::now() + Duration::from_secs(8);
        while std::time::Instant::now() < end {
            let ids = clusters(&cluster).await;
            assert!(ids.len() <= 1, "two clusters: {ids:?}");
            most = most.max(ids.len());
            tokio::time::sleep(crate::support::POLL_INTERVAL).await;
        }
        println!("{most} cluster came of it");
    });
}

/// With names instead of a list: who is expected, and who is there.
fn expect(cluster: &mut Cluster, count: usize) {
    let all: Vec<_> = cluster.nodes.iter().map(|node| node.peer_address()).collect();
    for node in &mut cluster.nodes {
        node.unset("PEAT_INITIAL_PEERS");
        node.set("PEAT_DISCOVER", &all.join(","));
        node.set("PEAT_EXPECT", &count.to_string());
    }
}

#[test]
fn nodes_that_expect_more_than_answer_make_no_cluster_until_all_do() {
    let test = "nodes_that_expect_more_than_answer_make_no_cluster_until_all_do";
    scenario(&format!("{}::{test}", module_path!()), 3, |network| async move {
        let mut random = Random::announced(test);
        let mut cluster = Cluster::prepare_in(&network);
        expect(&mut cluster, 3);
        // One answers in one direction only, which is no answer.
        let deaf = random.between(1, 4) as usize;
        let others = (1..=3).filter(|node| *node != deaf);
        network.cut(&others.map(|node| (node, deaf)).collect::<Vec<_>>());
        one_cluster_after_healing(&network, cluster, &mut random).await;
    });
}

#[test]
fn more_new_nodes_than_expected_make_no_cluster() {
    let test = "more_new_nodes_than_expected_make_no_cluster";
    scenario(&format!("{}::{test}", module_path!()), 4, |network| async move {
        let mut cluster = Cluster::prepare_in(&network);
        expect(&mut cluster, 2);
        // Each half has as many as are expected, and doesn't see that there are more.
        network.part(&[1, 2], &[3, 4]);
        cluster.start_all();
        hold(|| async {
            assert_eq!(clusters(&cluster).await, BTreeSet::new(), "a half made a cluster");
        })
        .await;
        network.heal();
        hold(|| async {
            assert_eq!(clusters(&cluster).await, BTreeSet::new(), "four made a cluster of two");
        })
        .await;
        let ended =
            cluster.nodes.iter_mut().filter(|node| node.runs()).any(|node| node.has_ended());
        assert!(ended, "nobody was told that there are too many");
    });
}

#[test]
fn a_node_whose_disk_was_wiped_comes_back_as_a_new_one_and_nothing_is_lost() {
    let test = "a_node_whose_disk_was_wiped_comes_back_as_a_new_one_and_nothing_is_lost";
    scenario(&format!("{}::{test}", module_path!()), 3, |network| async move {
        let mut random = Random::announced(test);
        let mut cluster = start(&network, |_| {}).await;
        let registers = Registers::start(&cluster, &mut random).await;
        registers.progress(100, LIMIT).await;
        // Also the node that bootstraps, the first of the list: it must not make a second cluster.
        let wiped = random.between(1, 4) as usize;
        println!("node {wiped} is wiped");
        let before = clusters(&cluster).await;
        let old = own(&cluster, wiped).await.expect("it answers").id;
        cluster.nodes[wiped - 1].kill();
        std::fs::remove_dir_all(&cluster.nodes[wiped - 1].data).expect("the disk can be wiped");
        cluster.nodes[wiped - 1].start();
        let stays = cluster.api(wiped % 3);
        let new = wait_for("the new node as a learner", LIMIT, || async {
            let seen = stays.get_json("/cluster").await?;
            let rows = seen["nodes"].as_array().ok_or("no nodes")?;
            let learner = rows.iter().find(|row| row["voter"] == false);
            let id = learner.and_then(|row| row["node_id"].as_str()).map(str::to_owned);
            id.ok_or_else(|| seen.to_string())
        })
        .await;
        assert_ne!(new, old, "it has forgotten what it promised, so it must not be the same voter");
        let path = format!("/cluster/members/{new}/promote");
        let body = json!({ "replaces": old });
        wait_for("its promotion", LIMIT, || async {
            let answer = stays.send(Method::POST, &path, Some(&body), &[]).await?;
            let seen = stays.get_json("/cluster").await?;
            let rows = seen["nodes"].as_array().ok_or("no nodes")?;
            let voters = rows.iter().filter(|row| row["voter"] == true);
            let ids: Vec<_> = voters.filter_map(|row| row["node_id"].as_str()).collect();
            let done =
                ids.len() == 3 && ids.contains(&new.as_str()) && !ids.contains(&old.as_str());
            if done && rows.len() == 3 { Ok(()) } else { Err(format!("{answer:?} {seen}")) }
        })
        .await;
        cluster.wait_ready().await;
        finish(&cluster, registers).await;
        assert_eq!(clusters(&cluster).await, before, "one cluster, and the same");
    });
}
