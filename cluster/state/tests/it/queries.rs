//! Typed reads: pages, bounds, and damage that is told.

use peat_gateway_state::query;
use peat_gateway_state::record::MeshIdOwner;
use peat_gateway_state::space::{ReadError, Space};
use peat_gateway_state::{Command, keys};

use crate::support::Cluster;
use crate::support::make::{self, app, doc, org, sink_id};

#[test]
fn listings_go_on_after_the_last_key_of_a_page() {
    let mut cluster = Cluster::new();
    for id in ["a", "ab", "b"] {
        cluster.done(make::create_organization(id));
    }
    for (number, id) in ["x", "xy", "z"].into_iter().enumerate() {
        cluster.done(make::create_formation("a", id, &format!("0000000{number}")));
        cluster.done(make::create_sink("a", id));
        let batches = vec![make::batch("x", id, vec![make::change(id, &[])])];
        cluster.done(make::append(cluster.fence(), "a", batches));
    }
    cluster.done(make::create_formation("ab", "x", "0000000A"));
    cluster.done(make::create_sink("ab", "x"));
    let rows = &cluster.rows;
    let (a, x) = (org("a"), app("x"));

    let page = |after: Option<&str>, limit| {
        let after = after.map(org);
        let page = query::organizations(rows, after.as_ref(), limit).unwrap();
        page.into_iter().map(|o| o.org_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 2), ["a", "ab"]);
    assert_eq!(page(Some("ab"), 2), ["b"]);
    assert_eq!(page(Some("aa"), 1), ["ab"]);
    assert_eq!(page(None, 0), [""; 0]);

    let page = |after: Option<&str>| {
        let after = after.map(app);
        let page = query::formations(rows, &a, after.as_ref(), 2).unwrap();
        page.into_iter().map(|f| f.app_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!((page(None), page(Some("xy"))), (vec!["x".into(), "xy".into()], vec!["z".into()]));

    let page = |after: Option<&str>| {
        let after = after.map(sink_id);
        let page = query::sinks(rows, &a, after.as_ref(), 2).unwrap();
        page.into_iter().map(|s| s.sink_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!((page(None), page(Some("xy"))), (vec!["x".into(), "xy".into()], vec!["z".into()]));

    let page = |after: Option<&str>| {
        let after = after.map(doc);
        let page = query::documents(rows, &a, &x, after.as_ref(), 2).unwrap();
        page.into_iter().map(|d| d.doc_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!((page(None), page(Some("xy"))), (vec!["x".into(), "xy".into()], vec!["z".into()]));

    assert_eq!(query::active_formations(rows).unwrap().len(), 4);
    assert_eq!(query::all_sinks(rows).unwrap().len(), 4);
    assert_eq!(query::genesis(rows, &a, &x).unwrap(), Some(make::sealed(1)));
    let owner = MeshIdOwner { org_id: org("ab"), app_id: x };
    assert_eq!(query::mesh_id_owner(rows, "0000000A").unwrap(), Some(owner));

    let page = |before, limit| {
        let page = query::audit_entries(rows, Some(&a), before, limit).unwrap();
        page.into_iter().map(|entry| entry.number).collect::<Vec<_>>()
    };
    assert_eq!((page(None, 2), page(Some(6), 9)), (vec![7, 6], vec![5, 4, 3, 2, 1]));
}

#[test]
fn journal_reads_begin_within_rows_and_respect_both_limits() {
    let mut cluster = Cluster::with_acme();
    for row in 0..3 {
        let events = (0..3).map(|n| make::change(&format!("{row}{n}"), &[])).collect();
        let batches = vec![make::batch("alpha", "a", events)];
        cluster.done(make::append(cluster.fence(), "acme", batches));
    }
    let read = |after, events_max, bytes_max| {
        let events =
            query::journal_events(&cluster.rows, &org("acme"), after, events_max, bytes_max);
        events.unwrap().into_iter().map(|event| event.sequence).collect::<Vec<_>>()
    };
    assert_eq!(read(1, 4, 1000), [2, 3, 4, 5]);
    assert_eq!(read(7, 9, 1000), [8, 9]);
    // Each event's patches have 6 bytes.
    assert_eq!(read(0, 9, 12), [1, 2]);
    assert_eq!(read(0, 9, 17), [1, 2]);
    assert_eq!(read(2, 9, 0), [3]);
    assert_eq!(read(9, 9, 1000), [0; 0]);
    assert_eq!(read(0, 0, 1000), [0; 0]);
    assert_eq!(read(u64::MAX, 9, 1000), [0; 0]);
}

#[test]
fn a_damaged_row_is_told_and_stops_apply() {
    let mut cluster = Cluster::with_acme();
    let acme = org("acme");
    for space in [Space::Organization, Space::OrganizationCounters] {
        cluster.rows.0.insert((space, keys::organization(&acme)), vec![0xff]);
    }
    let error = query::organization(&cluster.rows, &acme).unwrap_err();
    assert!(matches!(error, ReadError::Decode { space: "organization", .. }), "{error}");
    assert!(query::organizations(&cluster.rows, None, 9).is_err());

    let rename: Command = make::rename_organization("acme", "x");
    let envelope = peat_gateway_state::Envelope::new(make::actor("admin"), rename);
    let error = cluster.apply_bytes(peat_gateway_state::codec::encode(&envelope)).unwrap_err();
    assert!(error.to_string().contains("organization"), "{error}");
}
