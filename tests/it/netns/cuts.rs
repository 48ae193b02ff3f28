//! Links that fail: in one direction, around one node, and so that halves meet in one node only.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::{LIMIT, calm, finish, hold, leader_of, other, own, scenario, start};
use crate::support::random::Random;
use crate::support::registers::Registers;

/// How many more terms there may be after a fault that should change nothing: a busy machine's.
const TERMS_BY_CHANCE: u64 = 2;

#[test]
fn a_follower_behind_a_link_cut_in_one_direction_disturbs_nobody() {
    let test = "a_follower_behind_a_link_cut_in_one_direction_disturbs_nobody";
    scenario(&format!("{}::{test}", module_path!()), 3, |network| async move {
        let mut random = Random::announced(test);
        let cluster = start(&network, calm).await;
        let registers = Registers::start(&cluster, &mut random).await;
        let (leader, term) = leader_of(&cluster, &[1, 2, 3]).await;
        let follower = other(&network, leader, &mut random);
        for (from, to) in [(leader, follower), (follower, leader)] {
            network.cut(&[(from, to)]);
            hold(|| async {
                // It hears nothing and may ask whether it should stand, but it must not stand.
                let own = own(&cluster, follower).await.expect("it answers");
                assert!(own.term <= term + TERMS_BY_CHANCE, "it went from term {term} to {own:?}");
            })
            .await;
            registers.progress(50, LIMIT).await;
            network.heal();
            registers.progress(50, LIMIT).await;
        }
        let (_, now) = leader_of(&cluster, &[1, 2, 3]).await;
        assert!(now <= term + TERMS_BY_CHANCE, "term {term} before, {now} after");
        finish(&cluster, registers).await;
    });
}

#[test]
fn an_isolated_node_does_not_raise_its_term_and_comes_back_quietly() {
    let test = "an_isolated_node_does_not_raise_its_term_and_comes_back_quietly";
    scenario(&format!("{}::{test}", module_path!()), 3, |network| async move {
        let mut random = Random::announced(test);
        let cluster = start(&network, calm).await;
        let registers = Registers::start(&cluster, &mut random).await;
        let (leader, term) = leader_of(&cluster, &[1, 2, 3]).await;
        let follower = other(&network, leader, &mut random);
        network.isolate(follower);
        let alone = own(&cluster, follower).await.expect("it answers").term;
        hold(|| async {
            let own = own(&cluster, follower).await.expect("it answers");
            assert_eq!(own.term, alone, "nobody else can have raised it: {own:?}");
        })
        .await;
        network.heal();
        let (_, now) = leader_of(&cluster, &[1, 2, 3]).await;
        assert!(now <= term + TERMS_BY_CHANCE, "term {term} before, {now} after");
        finish(&cluster, registers).await;
    });
}

#[test]
fn a_leader_that_is_not_heard_or_hears_nobody_is_replaced() {
    let test = "a_leader_that_is_not_heard_or_hears_nobody_is_replaced";
    scenario(&format!("{}::{test}", module_path!()), 3, |network| async move {
        let mut random = Random::announced(test);
        let cluster = start(&network, |_| {}).await;
        let registers = Registers::start(&cluster, &mut random).await;
        for outgoing in [true, false] {
            let (leader, _) = leader_of(&cluster, &[1, 2, 3]).await;
            let others: Vec<_> = (1..=3).filter(|node| *node != leader).collect();
            let pair = |other: &usize| if outgoing { (leader, *other) } else { (*other, leader) };
            network.cut(&others.iter().map(pair).collect::<Vec<_>>());
            let (next, _) = leader_of(&cluster, &others).await;
            assert_ne!(next, leader);
            registers.progress(100, LIMIT).await;
            network.heal();
            registers.progress(50, LIMIT).await;
        }
        leader_of(&cluster, &[1, 2, 3]).await;
        finish(&cluster, registers).await;
    });
}

/// Terms that may come while halves see each other through one node only.
const TERMS_OF_A_BRIDGE: u64 = 3;

#[test]
fn halves_that_meet_in_one_node_keep_one_leader_and_go_on() {
    let test = "halves_that_meet_in_one_node_keep_one_leader_and_go_on";
    scenario(&format!("{}::{test}", module_path!()), 5, |network| async move {
        let mut random = Random::announced(test);
        let cluster = start(&network, calm).await;
        let registers = Registers::start(&cluster, &mut random).await;
        let (leader, term) = leader_of(&cluster, &[1, 2, 3, 4, 5]).await;
        // The leader stands in one half, the worst place; the bridge is a node that follows it.
        let mut rest: Vec<_> = (1..=5).filter(|node| *node != leader).collect();
        let bridge = rest.remove(random.between(0, 4) as usize);
        let (left, right) = ([leader, rest[0]], [rest[1], rest[2]]);
        println!("leader {leader}, bridge {bridge}");
        network.part(&left, &right);
        // From here on the half without the leader must get along with what the bridge tells it.
        registers.progress(50, LIMIT).await;
        let leaders = Mutex::new(BTreeSet::new());
        hold(|| async {
            for node in 1..=5 {
                let own = own(&cluster, node).await.expect("it answers");
                if own.role == "leader" {
                    let mut leaders = leaders.lock().expect("no panic under the lock");
                    leaders.insert((own.term, node));
                    let twice = leaders.iter().filter(|(term, _)| *term == own.term).count();
                    assert_eq!(twice, 1, "two leaders of one term: {leaders:?}");
                }
            }
        })
        .await;
        registers.progress(50, LIMIT).await;
        let leaders = leaders.into_inner().expect("no panic under the lock");
        let newest = leaders.last().map_or(term, |(term, _)| *term);
        assert!(newest <= term + TERMS_OF_A_BRIDGE, "term {term} before; leaders {leaders:?}");
        println!("leaders by term {leaders:?}");
        network.heal();
        leader_of(&cluster, &[1, 2, 3, 4, 5]).await;
        finish(&cluster, registers).await;
    });
}
