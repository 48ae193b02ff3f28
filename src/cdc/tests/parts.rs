//! Tests of the worker's parts and of the worker over scripted destinations.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use peat_gateway_state::record::{CURSOR_RANGES_MAX, Cursor, SinkFilter, SinkKind};
use proptest::prelude::*;
use tokio::time::Instant;

use super::memory::org;
use super::{MemoryJournal, Run, Scripted, eventually, quick_retries};
use crate::cdc::feed::{Source, batch};
use crate::cdc::gate::Gate;
use crate::cdc::journal::Journal;
use crate::cdc::progress::Progress;
use crate::cdc::retry::RetryPolicy;
use crate::cdc::sinks::{Failure, FailureClass};
use crate::cdc::trimmer;

fn any_kind() -> SinkKind {
    SinkKind::File { name: "unused".into() }
}

#[test]
fn event_json_has_the_documented_fields_in_one_line() {
    let journal = MemoryJournal::new();
    journal.append(&["units:7".into(), "units:7".into()]);
    let source = Source { org_id: org(), filter: SinkFilter::default() };
    let events = journal.events(&org(), 0).unwrap();
    let encoded = batch(&source, 0, &events).unwrap();
    let event = &events[1].event;
    let expected = format!(
        "{{\"org_id\":\"acme\",\"app_id\":\"alpha\",\"document_id\":\"units:7\",\
         \"change_hash\":\"{}\",\"actor_id\":\"a1\",\"timestamp_ms\":1700000000002,\
         \"patches\":[{{\"op\": \"set 2\"}}],\"event_id\":\"{}\",\"kind\":\"change\",\
         \"sequence\":2,\"document_sequence\":2}}",
        event.change_hash, event.event_id
    );
    assert_eq!(String::from_utf8(encoded.deliveries[1].body.to_vec()).unwrap(), expected);
}

#[test]
fn patches_that_are_no_json_are_sent_as_text() {
    let journal = MemoryJournal::new();
    journal.append(&["units:7".into(), "units:8".into()]);
    let mut events = journal.events(&org(), 0).unwrap();
    events[0].event.patches = b"{\"torn\":\n".to_vec();
    events[1].event.patches = Vec::new();
    let source = Source { org_id: org(), filter: SinkFilter::default() };
    let encoded = batch(&source, 0, &events).unwrap();
    let json = |n: usize| -> serde_json::Value {
        serde_json::from_slice(&encoded.deliveries[n].body).unwrap()
    };
    assert_eq!(json(0)["patches"], "{\"torn\":\n");
    assert!(!encoded.deliveries[0].body.contains(&b'\n'));
    assert_eq!(json(1)["patches"], serde_json::Value::Null);
}

#[test]
fn backoff_doubles_up_to_its_limit_with_full_jitter() {
    let policy = RetryPolicy::default();
    assert_eq!(policy.transient.ceiling(1), Duration::from_millis(100));
    assert_eq!(policy.transient.ceiling(4), Duration::from_millis(800));
    assert_eq!(policy.transient.ceiling(u32::MAX), Duration::from_secs(30));
    let delays: BTreeSet<Duration> = (0..50).map(|_| policy.transient.delay(6)).collect();
    assert!(delays.len() > 10, "{delays:?}");
    assert!(delays.iter().all(|delay| *delay <= Duration::from_millis(3200)));
    assert!(policy.rejected.delay(1) >= policy.rejected.least);
}

#[test]
fn gate_admits_one_probe_until_the_destination_answers() {
    let policy = quick_retries();
    let now = Instant::now();
    let mut gate = Gate::new(now);
    assert!(gate.admits(0, now) && !gate.admits(1, now), "it begins with a probe");
    gate.answered(now);
    assert!(gate.admits(50, now));
    let delay = gate.down(&policy, now).unwrap();
    assert!(gate.down(&policy, now).is_none() || delay.is_zero(), "the same outage counts once");
    gate.hold(Duration::from_secs(1), now);
    gate.answered(now);
    assert!(!gate.admits(0, now), "an attempt from before doesn't open it");
    let later = now + Duration::from_secs(1);
    assert!(gate.admits(0, later) && !gate.admits(1, later));
    gate.answered(later);
    assert!(gate.admits(50, later));
}

proptest! {
    /// Takes, passes and acknowledges in any order, against a plain set.
    #[test]
    fn progress_never_covers_an_outstanding_event(
        steps in prop::collection::vec((0u8..4, 0usize..40), 1..300),
    ) {
        let mut progress = Progress::default();
        let mut outstanding: BTreeSet<u64> = BTreeSet::new();
        let mut delivered: BTreeSet<u64> = BTreeSet::new();
        let mut sequence = 0;
        let mut before = 0;
        for (step, pick) in steps {
            match step {
                0 | 1 => {
                    sequence += 1;
                    progress.take(sequence, 0);
                    outstanding.insert(sequence);
                }
                2 => {
                    sequence += pick as u64;
                    progress.pass(sequence);
                }
                _ => {
                    if let Some(one) = outstanding.iter().nth(pick % outstanding.len().max(1)).copied() {
                        outstanding.remove(&one);
                        delivered.insert(one);
                        progress.acknowledge(one);
                    }
                }
            }
            let (acknowledged, ahead) = progress.snapshot();
            prop_assert!(acknowledged >= before);
            before = acknowledged;
            let expected = outstanding.first().map_or(sequence, |lowest| lowest - 1);
            prop_assert_eq!(acknowledged, expected);
            let mut above = acknowledged + 1;
            for (first, last) in &ahead {
                prop_assert!(*first > above && first <= last && *last <= sequence);
                above = *last;
                prop_assert!(outstanding.range(*first..=*last).next().is_none());
            }
            for one in &delivered {
                prop_assert!(progress.is_acknowledged(*one));
            }
            for one in &outstanding {
                prop_assert!(!progress.is_acknowledged(*one));
            }
            // A successor that goes on from the snapshot agrees.
            let cursor = Cursor { acknowledged, ahead, ..Cursor::default() };
            prop_assert_eq!(Progress::resume(&cursor).snapshot(), progress.snapshot());
        }
    }
}

#[tokio::test]
async fn failing_document_parks_only_its_lane() {
    let journal = Arc::new(MemoryJournal::new());
    let sink = journal.put_sink(any_kind(), true, 1);
    let healed = Arc::new(AtomicBool::new(false));
    let scripted = Arc::new(Scripted::new({
        let healed = Arc::clone(&healed);
        move |delivery, _| {
            let fails = delivery.document.as_str() == "bad:1" && !healed.load(Ordering::SeqCst);
            let class = FailureClass::Rejected;
            async move { if fails { Err(Failure::new(class, "no")) } else { Ok(()) } }.boxed()
        }
    }));
    let mut documents = vec!["good:1".to_owned(), "bad:1".to_owned()];
    documents.extend((0..500).map(|n| format!("good:{}", n % 7)));
    documents.push("bad:1".to_owned());
    documents.push("good:2".to_owned());
    let last = journal.append(&documents);
    let run = Run::start(&journal, &sink, Arc::clone(&scripted) as _);
    eventually("all other documents are delivered and committed", async || {
        let cursor = journal.committed();
        let expected = (1, vec![(3, last - 2), (last, last)]);
        let found = (cursor.acknowledged, cursor.ahead);
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    healed.store(true, Ordering::SeqCst);
    eventually("the document goes on", async || {
        let cursor = journal.committed();
        if cursor.acknowledged == last { Ok(()) } else { Err(format!("{cursor:?}")) }
    })
    .await;
    run.stop().await;
    let delivered = scripted.delivered.lock().unwrap();
    let position = |sequence| delivered.iter().position(|one| *one == sequence);
    assert!(position(2) < position(last - 1), "in order");
}

#[tokio::test]
async fn reading_stops_when_the_cursor_can_hold_no_more_ranges() {
    let journal = Arc::new(MemoryJournal::new());
    journal.state.lock().unwrap().acknowledged = Some((1..=5000).collect());
    let sink = journal.put_sink(any_kind(), true, 1);
    let healed = Arc::new(AtomicBool::new(false));
    let scripted = Arc::new(Scripted::new({
        let healed = Arc::clone(&healed);
        move |delivery, _| {
            let fails = delivery.document.as_str() == "bad:1" && !healed.load(Ordering::SeqCst);
            let class = FailureClass::Transient;
            async move { if fails { Err(Failure::new(class, "no")) } else { Ok(()) } }.boxed()
        }
    }));
    // Every other event is of the failing document: each good one is a range of its own.
    let documents: Vec<String> =
        (0..4000).map(|n| if n % 2 == 0 { "bad:1".into() } else { format!("good:{n}") }).collect();
    let last = journal.append(&documents);
    let run = Run::start(&journal, &sink, Arc::clone(&scripted) as _);
    eventually("as many ranges as a cursor holds", async || {
        let ranges = journal.committed().ahead.len();
        if ranges == CURSOR_RANGES_MAX { Ok(()) } else { Err(format!("{ranges}")) }
    })
    .await;
    let highest = scripted.delivered.lock().unwrap().iter().max().copied().unwrap();
    assert!(highest < last, "it stops taking events: {highest}");
    // A successor has the fullest possible cursor, and must still go on.
    run.crash().await;
    let run = Run::start(&journal, &sink, Arc::clone(&scripted) as _);
    healed.store(true, Ordering::SeqCst);
    eventually("everything is delivered", async || {
        let cursor = journal.committed();
        if cursor.acknowledged == last { Ok(()) } else { Err(format!("{}", cursor.acknowledged)) }
    })
    .await;
    run.stop().await;
    journal.assert_promises_held();
}

#[tokio::test]
async fn retry_after_is_honoured() {
    const ASKED: Duration = Duration::from_millis(400);
    let journal = Arc::new(MemoryJournal::new());
    let sink = journal.put_sink(any_kind(), true, 1);
    let scripted = Arc::new(Scripted::new(|delivery, before| {
        let fails = delivery.sequence == 1 && before == 0;
        async move {
            let failure = Failure::new(FailureClass::Transient, "busy");
            if fails { Err(Failure { retry_after: Some(ASKED), ..failure }) } else { Ok(()) }
        }
        .boxed()
    }));
    journal.append(&["a:1".into(), "a:2".into(), "a:3".into()]);
    let run = Run::start(&journal, &sink, Arc::clone(&scripted) as _);
    eventually("everything is delivered", async || {
        let cursor = journal.committed();
        if cursor.acknowledged == 3 { Ok(()) } else { Err(format!("{cursor:?}")) }
    })
    .await;
    run.stop().await;
    let attempts = scripted.attempts.lock().unwrap();
    let (_, first) = attempts[0];
    assert!(attempts.len() == 4 && attempts[1..].iter().all(|(_, at)| *at - first >= ASKED));
}

#[tokio::test]
async fn destination_that_is_down_gets_one_probe_at_a_time() {
    let journal = Arc::new(MemoryJournal::new());
    let sink = journal.put_sink(any_kind(), true, 1);
    let healed = Arc::new(AtomicBool::new(false));
    let scripted = Arc::new(Scripted::new({
        let healed = Arc::clone(&healed);
        move |_, _| {
            let fails = !healed.load(Ordering::SeqCst);
            let class = FailureClass::Down;
            async move {
                tokio::task::yield_now().await;
                if fails { Err(Failure::new(class, "refused")) } else { Ok(()) }
            }
            .boxed()
        }
    }));
    let documents: Vec<String> = (0..100).map(|n| format!("a:{n}")).collect();
    journal.append(&documents);
    let run = Run::start(&journal, &sink, Arc::clone(&scripted) as _);
    eventually("several probes", async || {
        let count = scripted.attempts.lock().unwrap().len();
        if count >= 5 { Ok(()) } else { Err(format!("{count}")) }
    })
    .await;
    assert_eq!(scripted.running.lock().unwrap().1, 1, "never two attempts at once");
    healed.store(true, Ordering::SeqCst);
    eventually("everything is delivered", async || {
        let cursor = journal.committed();
        if cursor.acknowledged == 100 { Ok(()) } else { Err(format!("{cursor:?}")) }
    })
    .await;
    run.stop().await;
}

#[tokio::test]
async fn cursor_does_not_pass_an_event_while_the_destination_is_down() {
    let journal = Arc::new(MemoryJournal::new());
    let sink = journal.put_sink(any_kind(), true, 1);
    let healed = Arc::new(AtomicBool::new(false));
    let scripted = Arc::new(Scripted::new({
        let healed = Arc::clone(&healed);
        move |delivery, _| {
            let sequence = delivery.sequence;
            let fails = sequence == 2 && !healed.load(Ordering::SeqCst);
            async move {
                // The third is under way when the second finds the destination down.
                if sequence == 3 {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                if fails { Err(Failure::new(FailureClass::Down, "refused")) } else { Ok(()) }
            }
            .boxed()
        }
    }));
    journal.append(&["a:1".into(), "a:2".into(), "a:3".into()]);
    let run = Run::start(&journal, &sink, Arc::clone(&scripted) as _);
    eventually("the third is committed ahead of the second", async || {
        let cursor = journal.committed();
        let found = (cursor.acknowledged, cursor.ahead);
        if found == (1, vec![(3, 3)]) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    healed.store(true, Ordering::SeqCst);
    eventually("everything is delivered", async || {
        let cursor = journal.committed();
        if cursor.acknowledged == 3 { Ok(()) } else { Err(format!("{cursor:?}")) }
    })
    .await;
    run.stop().await;
}

#[tokio::test]
async fn events_that_the_filter_leaves_out_count_as_acknowledged() {
    let journal = Arc::new(MemoryJournal::new());
    let mut sink = journal.put_sink(any_kind(), true, 1);
    sink.filter.collections = vec!["wanted".into()];
    let scripted = Arc::new(Scripted::new(|_, _| async { Ok(()) }.boxed()));
    let documents: Vec<String> = (0..3000)
        .map(|n| if n % 1000 == 17 { "wanted:1".into() } else { format!("other:{n}") })
        .collect();
    journal.append(&documents);
    let run = Run::start(&journal, &sink, Arc::clone(&scripted) as _);
    eventually("the cursor reaches the end", async || {
        let cursor = journal.committed();
        if cursor.acknowledged == 3000 { Ok(()) } else { Err(format!("{cursor:?}")) }
    })
    .await;
    run.stop().await;
    assert_eq!(*scripted.delivered.lock().unwrap(), [18, 1018, 2018]);
}

#[tokio::test]
async fn worker_stops_in_time_while_the_destination_hangs() {
    let journal = Arc::new(MemoryJournal::new());
    let sink = journal.put_sink(any_kind(), true, 1);
    let scripted = Arc::new(Scripted::new(|delivery, _| {
        let hangs = delivery.sequence == 2;
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
        .boxed()
    }));
    journal.append(&["a:1".into(), "a:2".into(), "a:3".into()]);
    let run = Run::start(&journal, &sink, Arc::clone(&scripted) as _);
    eventually("the others are delivered", async || {
        let delivered = scripted.delivered.lock().unwrap().len();
        if delivered == 2 { Ok(()) } else { Err(format!("{delivered}")) }
    })
    .await;
    let reached = tokio::time::timeout(Duration::from_secs(10), run.stop()).await.unwrap();
    assert_eq!((reached.acknowledged, reached.ahead), (1, vec![(3, 3)]));
    let committed = journal.committed();
    assert_eq!((committed.acknowledged, committed.ahead), (1, vec![(3, 3)]));
}

#[tokio::test]
async fn journal_is_trimmed_behind_the_slowest_sink_and_the_retention() {
    let journal = Arc::new(MemoryJournal::new());
    journal.put_sink(any_kind(), true, 1);
    journal.append(&(0..40).map(|n| format!("a:{n}")).collect::<Vec<_>>());
    let mut reached = std::collections::BTreeMap::new();
    let mut trimmed = async || {
        trimmer::round(&journal, &mut reached).await.unwrap();
        journal.state.lock().unwrap().trimmed
    };
    assert_eq!(trimmed().await, 0, "nothing is acknowledged");
    let cursor = Cursor { acknowledged: 30, ..Cursor::default() };
    journal.state.lock().unwrap().cursors.insert(super::memory::sink_id(), cursor);
    journal.state.lock().unwrap().retention_ms = u64::MAX;
    assert_eq!(trimmed().await, 0, "the retention keeps everything");
    // The events are of November 2023: older than a day, younger than a century.
    journal.state.lock().unwrap().retention_ms = 86_400_000;
    assert_eq!(trimmed().await, 30);
    journal.state.lock().unwrap().retention_ms = 0;
    journal.put_sink(any_kind(), false, 2);
    assert_eq!(trimmed().await, 40, "a disabled sink holds nothing");
}

#[tokio::test]
async fn retention_gives_way_to_the_quota_and_what_is_not_delivered_never_does() {
    let journal = Arc::new(MemoryJournal::new());
    journal.put_sink(any_kind(), true, 1);
    journal.append(&(0..40).map(|n| format!("a:{n}")).collect::<Vec<_>>());
    let cursor = Cursor { acknowledged: 30, ..Cursor::default() };
    let mut reached = std::collections::BTreeMap::new();
    {
        let mut state = journal.state.lock().unwrap();
        state.cursors.insert(super::memory::sink_id(), cursor);
        state.retention_ms = u64::MAX;
    }
    let mut trimmed = async |rows_max: u64| {
        journal.state.lock().unwrap().rows_max = rows_max;
        trimmer::round(&journal, &mut reached).await.unwrap();
        journal.state.lock().unwrap().trimmed
    };
    assert_eq!(trimmed(40).await, 0, "there is room: the retention keeps everything");
    assert_eq!(trimmed(35).await, 8, "the oldest that are delivered go until there is room");
    assert_eq!(trimmed(5).await, 30, "what isn't stays, whatever the quota says");
    assert!(
        crate::cdc::journal::is_nearly_full(80, 100)
            && !crate::cdc::journal::is_nearly_full(79, 100)
    );
}
