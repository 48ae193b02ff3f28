//! Three nodes: bootstrap, writes, reads, failover, catching up.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::Duration;

use peat_gateway_cluster::{Consistency, Leadership, Node, ProposeError, ReadIndexError, Role};
use peat_gateway_state::command::{Fence, TrimJournal};
use peat_gateway_state::ids::OrgId;
use peat_gateway_state::{Command, Envelope, Outcome, RefusalKind};
use support::{Cluster, TIMEOUT, actor, at_least, create, has, initialize, wait, write};

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_bootstrap_into_one_cluster_and_agree() {
    let cluster = Cluster::of_three().await;
    let ids: Vec<_> = cluster.running().iter().map(|handle| handle.cluster_id()).collect();
    assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    for place in 0..3 {
        write(&cluster.handle(place), &format!("org{place}")).await.unwrap();
    }
    cluster.wait_agreement().await;
    for handle in cluster.running() {
        let view = handle.local_view();
        assert!((0..3).all(|place| has(&view, &format!("org{place}"))));
    }
    let members = cluster.handle(0).members(TIMEOUT).await;
    assert_eq!(members.len(), 3);
    assert_eq!(members.iter().filter(|member| member.role == Role::Leader).count(), 1);
    assert_eq!(members.iter().filter(|member| member.role == Role::Follower).count(), 2);
    assert!(members.iter().all(|member| member.state_hash == members[0].state_hash));
}

#[tokio::test(flavor = "multi_thread")]
async fn write_through_one_node_is_read_through_another_by_its_index() {
    let cluster = Cluster::of_three().await;
    for place in 0..3 {
        let name = format!("org{place}");
        let committed = write(&cluster.handle(place), &name).await.unwrap();
        let other = cluster.handle((place + 1) % 3);
        let view = other.read(at_least(committed.applied_index), TIMEOUT).await.unwrap();
        assert!(view.applied_index() >= committed.applied_index && has(&view, &name));
    }
    let ahead = at_least(u64::MAX);
    let behind = cluster.handle(0).read(ahead, Duration::from_millis(50)).await;
    assert!(matches!(behind, Err(ReadIndexError::Behind { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn linearizable_read_on_any_node_sees_every_acknowledged_write() {
    let cluster = Cluster::of_three().await;
    for round in 0..60 {
        let name = format!("org{round}");
        write(&cluster.handle(round % 3), &name).await.unwrap();
        for reader in cluster.running() {
            let view = reader.read(Consistency::default(), TIMEOUT).await.unwrap();
            assert!(has(&view, &name), "{name} is missing");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writes_through_all_nodes_each_get_their_own_answer() {
    let cluster = Cluster::of_three().await;
    let mut writers = Vec::new();
    for writer in 0..300 {
        let handle = cluster.handle(writer % 3);
        writers.push(tokio::spawn(async move {
            let name = format!("org{writer}");
            let committed = write(&handle, &name).await.unwrap();
            let Outcome::Organization(org) = committed.outcome else { panic!("no organisation") };
            assert_eq!(org.org_id.as_str(), name);
            committed.index
        }));
    }
    let mut indexes = Vec::new();
    for writer in writers {
        indexes.push(writer.await.unwrap());
    }
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), 300);
    cluster.wait_agreement().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_command_is_an_answer_on_every_node() {
    let cluster = Cluster::of_three().await;
    write(&cluster.handle(0), "org").await.unwrap();
    for handle in cluster.running() {
        let committed = handle.propose(&create("org"), TIMEOUT).await.unwrap();
        let Outcome::Refused(refusal) = committed.outcome else { panic!("not refused") };
        assert_eq!(refusal.kind, RefusalKind::Conflict);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn others_go_on_when_the_leader_is_gone_and_it_catches_up_later() {
    let mut cluster = Cluster::of_three().await;
    for (round, graceful) in [(0, false), (1, true)] {
        let old = cluster.leader().await;
        write(&cluster.handle(old), &format!("before{round}")).await.unwrap();
        if graceful {
            cluster.stop(old).await;
        } else {
            cluster.kill(old);
        }
        let handle = cluster.running().remove(0);
        let name = format!("after{round}");
        wait_write(&handle, &name).await;
        assert!(has(&handle.read(Consistency::default(), TIMEOUT).await.unwrap(), &name));
        cluster.start(old).await;
        cluster.wait_ready().await;
        cluster.wait_agreement().await;
        assert!(has(&cluster.handle(old).local_view(), &name));
    }
}

/// Writes until it is known to be done; an unknown outcome may have been done.
async fn wait_write(handle: &peat_gateway_cluster::Handle, name: &str) {
    let end = std::time::Instant::now() + support::PATIENCE;
    loop {
        let last = match handle.propose(&create(name), TIMEOUT).await {
            Ok(committed) => match committed.outcome {
                Outcome::Organization(_) | Outcome::Refused(_) => return,
                outcome => panic!("{outcome:?}"),
            },
            Err(error) => error,
        };
        assert!(std::time::Instant::now() < end, "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_that_was_away_past_the_purge_gets_a_snapshot() {
    let mut cluster = Cluster::of_three_with(|config| {
        config.timing.snapshot_entries = 40;
        config.timing.entries_kept = 10;
    })
    .await;
    let away = cluster.follower().await;
    cluster.kill(away);
    let leader = cluster.handle(cluster.leader().await);
    for number in 0..200 {
        write(&leader, &format!("org{number}")).await.unwrap();
    }
    drop(leader);
    cluster.start(away).await;
    cluster.wait_agreement().await;
    // It has what it never applied: the 200 entries were no longer there to be sent one by one.
    let applied = cluster.handle(away).storage_counts().applied_entries;
    assert!(applied < 200, "{applied} entries were applied: no snapshot came");
    let view = cluster.handle(away).local_view();
    assert!((0..200).all(|number| has(&view, &format!("org{number}"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_restarted_keep_everything() {
    let mut cluster = Cluster::of_three().await;
    for number in 0..20 {
        write(&cluster.handle(number % 3), &format!("org{number}")).await.unwrap();
    }
    let id = cluster.handle(0).cluster_id();
    for place in 0..3 {
        cluster.kill(place);
    }
    for place in 0..3 {
        cluster.start(place).await;
    }
    cluster.wait_ready().await;
    let view = cluster.handle(1).read(Consistency::default(), TIMEOUT).await.unwrap();
    assert!((0..20).all(|number| has(&view, &format!("org{number}"))));
    assert_eq!(cluster.handle(0).cluster_id(), id);
    write(&cluster.handle(2), "later").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_work_runs_on_the_leader_under_its_epoch_and_nowhere_else() {
    let mut cluster = Cluster::of_three().await;
    let place = cluster.leader().await;
    let leader = cluster.handle(place);
    let Leadership::Leader { term, epoch } = *leader.leadership().borrow() else {
        panic!("no epoch")
    };
    let work = |term, epoch| {
        let org_id = OrgId::parse("org").unwrap();
        let fence = Fence { term, epoch: Some(epoch) };
        let trim = TrimJournal { fence, org_id, through: 0 };
        Envelope::new(actor(), Command::TrimJournal(trim))
    };
    let follower = cluster.handle(cluster.follower().await);
    for refused in [
        follower.propose_leader_work(&work(term, epoch), TIMEOUT).await,
        follower.propose(&work(term, epoch), TIMEOUT).await,
        leader.propose_leader_work(&work(term + 1, epoch), TIMEOUT).await,
        leader.propose_leader_work(&create("org"), TIMEOUT).await,
    ] {
        assert!(matches!(refused, Err(ProposeError::NotLeader)), "{refused:?}");
    }
    let stale = peat_gateway_state::ids::Epoch(epoch.0 - 1);
    let fenced = leader.propose_leader_work(&work(term, stale), TIMEOUT).await.unwrap();
    let Outcome::Refused(refusal) = fenced.outcome else { panic!("not refused") };
    assert_eq!(refusal.kind, RefusalKind::Fenced);

    let mut watched = leader.leadership();
    cluster.stop(place).await;
    wait("the old leader follows", || match *watched.borrow_and_update() {
        Leadership::Follower => Ok(()),
        leading => Err(leading),
    })
    .await;
    let new = cluster.handle(cluster.leader().await);
    let Leadership::Leader { epoch: newer, .. } = *new.leadership().borrow() else {
        panic!("no epoch")
    };
    assert!(newer > epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_happens_and_it_is_said() {
    let mut cluster = Cluster::of_three().await;
    let last = cluster.follower().await;
    for place in (0..3).filter(|place| *place != last) {
        cluster.kill(place);
    }
    let handle = cluster.handle(last);
    wait("the node isn't ready", || handle.ready().err().ok_or("ready")).await;
    let refused = handle.propose(&create("lost"), Duration::from_secs(3)).await;
    assert!(
        matches!(refused, Err(ProposeError::Unavailable(_) | ProposeError::Unknown(_))),
        "{refused:?}"
    );
    let refused = handle.read(Consistency::default(), Duration::from_millis(300)).await;
    assert!(matches!(refused, Err(ReadIndexError::Unavailable(_))));
    let stale =
        Consistency { stale: true, max_staleness: Some(Duration::from_millis(1)), min_index: 0 };
    wait("the contact is old", || match handle.ready() {
        Err(reason) => Ok(reason),
        Ok(()) => Err("ready"),
    })
    .await;
    let refused = handle.read(stale, TIMEOUT).await;
    assert!(matches!(refused, Err(ReadIndexError::Stale { .. })));
    handle.read(at_least(1), TIMEOUT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_of_one_needs_no_listener_and_survives_restarts() {
    let mut cluster = Cluster::configured(1, |config| {
        config.initial_peers.clear();
        config.peer_bind = None;
    });
    cluster.start(0).await;
    cluster.wait_ready().await;
    initialize(&cluster.running()).await;
    write(&cluster.handle(0), "org").await.unwrap();
    let id = cluster.handle(0).cluster_id();
    cluster.stop(0).await;
    cluster.start(0).await;
    cluster.wait_ready().await;
    let view = cluster.handle(0).read(Consistency::default(), TIMEOUT).await.unwrap();
    assert!(has(&view, "org"));
    assert_eq!(cluster.handle(0).cluster_id(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_command_is_refused_before_it_is_sent() {
    let mut cluster = Cluster::configured(1, |config| config.initial_peers.clear());
    cluster.start(0).await;
    cluster.wait_ready().await;
    let mut envelope = create("org");
    envelope.actor.request_id = "x".repeat(2 << 20);
    let refused = cluster.handle(0).propose(&envelope, TIMEOUT).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn second_process_on_a_data_directory_is_refused() {
    let mut cluster = Cluster::configured(1, |config| {
        config.initial_peers.clear();
        config.peer_bind = None;
    });
    cluster.start(0).await;
    assert!(Node::start(cluster.configs[0].clone()).await.is_err());
}
