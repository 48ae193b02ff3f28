//! Where mesh nodes were last seen, so that the next leader dials them at once.

use super::work::{Decided, Work, refuse};
use crate::command::{PEERS_PER_COMMAND_MAX, RememberPeers};
use crate::ids::{AppId, OrgId};
use crate::keys;
use crate::outcome::{Outcome, RefusalKind, code};
use crate::query;
use crate::record::{PEER_ADDRESS_BYTES_MAX, PEER_ADDRESSES_MAX, PEERS_PER_FORMATION_MAX, Peer};
use crate::space::Space;

/// Hex characters of an endpoint id.
const PEER_ID_BYTES: usize = 64;

/// Remembers peers; beyond the limit those seen longest ago are forgotten.
pub(super) fn remember(work: &mut Work<'_>, command: RememberPeers) -> Decided {
    let RememberPeers { org_id, app_id, peers, .. } = command;
    if peers.len() > PEERS_PER_COMMAND_MAX {
        return refuse(
            RefusalKind::Invalid,
            code::TOO_MANY_PEERS,
            format!("a command may remember {PEERS_PER_COMMAND_MAX} peers, not {}", peers.len()),
        );
    }
    work.parent_formation(&org_id, &app_id)?;
    let mut met_new = false;
    for mut peer in peers {
        check(&peer)?;
        // A time to come would keep the peer for ever.
        peer.last_seen = peer.last_seen.min(work.entry.now);
        met_new |= query::peer(&work.rows, &org_id, &app_id, &peer.peer_id)?.is_none();
        let key = keys::peer(&org_id, &app_id, &peer.peer_id);
        work.rows.put_record(Space::Peer, key, &peer)?;
    }
    if met_new {
        forget_oldest(work, &org_id, &app_id)?;
    }
    Ok(Outcome::Done)
}

/// Counts by reading all peers: at most the limit and one command's, and only for a new peer.
fn forget_oldest(work: &mut Work<'_>, org: &OrgId, app: &AppId) -> Decided<()> {
    let mut seen: Vec<(u64, String)> = Vec::new();
    let range = keys::formation_range(org, app);
    query::scan_records(&work.rows, Space::Peer, &range, false, &mut |_, peer: Peer| {
        seen.push((peer.last_seen, peer.peer_id));
        true
    })?;
    let surplus = seen.len().saturating_sub(PEERS_PER_FORMATION_MAX);
    seen.sort_unstable();
    for (_, peer_id) in seen.iter().take(surplus) {
        work.rows.delete(Space::Peer, keys::peer(org, app, peer_id))?;
    }
    Ok(())
}

fn check(peer: &Peer) -> Decided<()> {
    let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let fits = |address: &String| (1..=PEER_ADDRESS_BYTES_MAX).contains(&address.len());
    if peer.peer_id.len() == PEER_ID_BYTES
        && peer.peer_id.bytes().all(lower_hex)
        && peer.addresses.len() <= PEER_ADDRESSES_MAX
        && peer.addresses.iter().all(fits)
    {
        return Ok(());
    }
    let detail = format!(
        "a peer must have an id of {PEER_ID_BYTES} lower-case hex characters and at most \
         {PEER_ADDRESSES_MAX} addresses of 1 to {PEER_ADDRESS_BYTES_MAX} bytes"
    );
    refuse(RefusalKind::Invalid, code::INVALID_PEER, detail)
}
