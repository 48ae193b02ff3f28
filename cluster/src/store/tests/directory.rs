//! Whose directory it is.

use std::fs;

use peat_gateway_state::VERSION;

use super::{CLUSTER, open};
use crate::store::Store;

fn refusal(path: &std::path::Path) -> String {
    Store::open(path).err().expect("must be refused").to_string()
}

#[test]
fn a_second_user_of_the_directory_is_refused_until_the_first_has_closed_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let view = store.view();
    let error = refusal(directory.path());
    assert!(error.contains("another process uses it"), "{error}");
    drop(store);
    refusal(directory.path());
    drop(view);
    open(directory.path());
}

#[test]
fn a_newer_format_is_refused_and_the_message_says_what_to_start() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    fs::write(directory.path().join("FORMAT"), "peat-gateway data directory\nformat 3\n").unwrap();
    let error = refusal(directory.path());
    assert!(error.contains("format is 3") && error.contains("newer version"), "{error}");
}

#[test]
fn directory_of_a_newer_cluster_is_refused_and_one_of_this_version_is_marked() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let format = directory.path().join("FORMAT");
    let written = || fs::read_to_string(&format).unwrap();
    // What builds from before there were versions read, and what they refuse.
    assert_eq!(written(), "peat-gateway data directory\nformat 1\n");
    store.mark_version(1).unwrap();
    assert_eq!(written(), "peat-gateway data directory\nformat 1\n");
    store.mark_version(2).unwrap();
    assert_eq!(written(), "peat-gateway data directory\nformat 2\ncluster version 2\n");
    store.mark_version(1).unwrap();
    assert!(written().contains("version 2"), "it goes back");
    drop(store);
    // A state that lags behind the mark doesn't take it back.
    let store = open(directory.path());
    assert!(written().contains("version 2"), "it goes back");
    store.mark_version(VERSION + 1).unwrap();
    drop(store);
    let error = refusal(directory.path());
    let version = format!("its cluster has version {}", VERSION + 1);
    assert!(error.contains(&version) && error.contains("start the newer build"), "{error}");
}

#[test]
fn a_directory_of_somebody_else_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("thesis.tex"), "mine").unwrap();
    let error = refusal(directory.path());
    assert!(error.contains("thesis.tex") && error.contains("empty one"), "{error}");
    fs::remove_file(directory.path().join("thesis.tex")).unwrap();
    fs::create_dir(directory.path().join("lost+found")).unwrap();
    open(directory.path());
    fs::write(directory.path().join("FORMAT"), "something").unwrap();
    refusal(directory.path());
}

#[test]
fn a_node_id_is_made_once_and_the_cluster_is_adopted_once() {
    let directory = tempfile::tempdir().unwrap();
    let opened = Store::open(directory.path()).unwrap();
    assert!(opened.was_new);
    let identity = opened.store.identity();
    assert!(identity.node_id != 0 && identity.cluster_id.is_none());
    opened.store.adopt(CLUSTER).unwrap();
    opened.store.adopt(CLUSTER).unwrap();
    assert!(opened.store.adopt([9; 16]).is_err());
    assert!(opened.store.failure().borrow().is_none(), "a refusal is no failure");
    drop(opened);
    let store = open(directory.path());
    assert_eq!(store.identity().node_id, identity.node_id);
    assert_eq!(store.identity().cluster_id, Some(CLUSTER));
    assert!(store.adopt([9; 16]).is_err());
}

#[test]
fn an_interrupted_first_start_is_finished_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    // As if the process had ended right after FORMAT was written.
    fs::remove_dir_all(directory.path().join("db")).unwrap();
    fs::remove_file(directory.path().join("synced")).unwrap();
    assert!(Store::open(directory.path()).unwrap().was_new);

    // Or before that, when the file had only its temporary name.
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("FORMAT.tmp"), "peat-gateway data").unwrap();
    assert!(Store::open(directory.path()).unwrap().was_new);
    assert!(!directory.path().join("FORMAT.tmp").exists());
}
