//! Whose write goes to consensus next: organisations take turns, and none takes all places.
//!
//! ```text
//!  write of org a ─► a: ▢▢▢▢▢ ─┐
//!  write of org b ─► b: ▢      ├─ turns: b, a, c ─► places (few, so that what is under way is soon done)
//!  write of org c ─► c: ▢▢     ┘                    beside others, one fills three quarters at most
//! ```
//!
//! A flood of one organisation waits in its own queue, up to a bound; beyond it a write is refused and
//! nothing happened. Whoever writes alone may fill all places. A newcomer finds a free place at once, or
//! the next one after one turn of each organisation that waits. All steps are O(1). Each node shares out its own places: what other nodes
//! forward was shared out there.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peat_gateway_state::command::Command;
use peat_gateway_state::ids::OrgId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::WriteLimits;
use crate::error::ProposeError;

/// What waits together: an organisation's writes, or those that belong to none.
type Key = Option<OrgId>;

/// The organisation that a client's request is about; `None` for the cluster's own.
pub(crate) fn organization(command: &Command) -> Option<OrgId> {
    let id = match command {
        Command::CreateOrganization(c) => &c.org_id,
        Command::UpdateOrganization(c) => &c.org_id,
        Command::DeleteOrganization(c) => &c.org_id,
        Command::CreateFormation(c) => &c.org_id,
        Command::UpdateFormation(c) => &c.org_id,
        Command::DeleteFormation(c) => &c.org_id,
        Command::CreateSink(c) => &c.org_id,
        Command::UpdateSink(c) => &c.org_id,
        Command::DeleteSink(c) => &c.org_id,
        // The administrators' settings and audit entries, and leader work, which has a lane of its own.
        _ => return None,
    };
    Some(id.clone())
}

/// The places of this node, shared out. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FairPlaces(Arc<Shared>);

struct Shared {
    limits: WriteLimits,
    state: Mutex<State>,
}

/// What the queues did since the start, and hold now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// Writes in consensus now.
    pub under_way: u64,
    /// Writes that wait for a place now.
    pub waiting: u64,
    /// Writes refused because their organisation had too many waiting.
    pub refused_share: u64,
    /// Writes refused because too many waited, or waited for too long.
    pub refused_full: u64,
    /// Writes refused because this node has too many entries to apply.
    pub refused_lag: u64,
}

#[derive(Default)]
struct State {
    counts: WriteCounts,
    /// Only organisations that have something under way or waiting.
    queues: HashMap<Key, Queue>,
    /// Who may be next: has someone waiting. Holds a key at most once; whoever has its full share when
    /// its turn comes loses the turn, and gets another when one of its places is free.
    turns: VecDeque<Key>,
}

#[derive(Default)]
struct Queue {
    under_way: usize,
    /// A caller that gave up leaves its sender here, closed, until its turn.
    waiting: VecDeque<oneshot::Sender<Place>>,
    has_turn: bool,
}

/// A place in consensus; dropping it gives it to the next one.
pub(crate) struct Place {
    /// `None` once it was taken back undelivered.
    holder: Option<(FairPlaces, Key)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((places, key)) = self.holder.take() {
            places.release(&key);
        }
    }
}

impl FairPlaces {
    pub(crate) fn new(limits: WriteLimits) -> Self {
        Self(Arc::new(Shared { limits, state: Mutex::default() }))
    }

    /// Waits for a place until `deadline`. Dropping the future gives its turn up.
    ///
    /// # Errors
    /// `OverShare` or `Overloaded`: nothing happened.
    pub(crate) async fn enter(&self, org: Key, deadline: Instant) -> Result<Place, ProposeError> {
        let turn = match self.ask(org)? {
            Asked::Place(place) => return Ok(place),
            Asked::Turn(turn) => turn,
        };
        match tokio::time::timeout_at(deadline, turn).await {
            Ok(Ok(place)) => Ok(place),
            _ => {
                self.lock().counts.refused_full += 1;
                Err(ProposeError::Overloaded)
            }
        }
    }

    /// What the queues did and hold.
    pub(crate) fn counts(&self) -> WriteCounts {
        self.lock().counts
    }

    /// Counts a write that was refused because of entries that wait to be applied.
    pub(crate) fn count_refused_lag(&self) {
        self.lock().counts.refused_lag += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many places one of so many organisations may have.
    fn share(&self, organizations: usize) -> usize {
        match organizations {
            0 | 1 => self.0.limits.under_way_max,
            _ => (self.0.limits.under_way_max * 3).div_ceil(4).max(1),
        }
    }

    fn ask(&self, key: Key) -> Result<Asked, ProposeError> {
        let limits = self.0.limits;
        let mut state = self.lock();
        let State { counts, queues, turns } = &mut *state;
        let organizations = queues.len() + usize::from(!queues.contains_key(&key));
        let queue = queues.entry(key.clone()).or_default();
        if queue.waiting.is_empty()
            && queue.under_way < self.share(organizations)
            && counts.under_way < limits.under_way_max as u64
        {
            queue.under_way += 1;
            counts.under_way += 1;
            return Ok(Asked::Place(self.place(key)));
        }
        let limit = limits.waiting_per_organization_max;
        if queue.waiting.len() >= limit {
            counts.refused_share += 1;
            // An entry that was made just now must not stay.
            forget_idle(queues, key);
            return Err(ProposeError::OverShare { limit });
        }
        if counts.waiting >= limits.waiting_max as u64 {
            counts.refused_full += 1;
            forget_idle(queues, key);
            return Err(ProposeError::Overloaded);
        }
        let (sender, turn) = oneshot::channel();
        queue.waiting.push_back(sender);
        counts.waiting += 1;
        if !queue.has_turn {
            queue.has_turn = true;
            turns.push_back(key);
        }
        self.fill(&mut state);
        Ok(Asked::Turn(turn))
    }

    fn place(&self, key: Key) -> Place {
        Place { holder: Some((self.clone(), key)) }
    }

    fn release(&self, key: &Key) {
        let mut state = self.lock();
        state.counts.under_way -= 1;
        if let Some(queue) = state.queues.get_mut(key) {
            queue.under_way -= 1;
            if !queue.waiting.is_empty() && !queue.has_turn {
                queue.has_turn = true;
                state.turns.push_back(key.clone());
            }
        }
        self.fill(&mut state);
        forget_idle(&mut state.queues, key.clone());
    }

    /// Gives free places to whoever has a turn.
    fn fill(&self, state: &mut State) {
        while state.counts.under_way < self.0.limits.under_way_max as u64 {
            let Some(next) = state.turns.pop_front() else { break };
            self.serve(state, next);
        }
    }

    /// Gives a place to the first one of a queue that still waits, and the queue its next turn.
    fn serve(&self, state: &mut State, key: Key) {
        let State { counts, queues, turns } = state;
        let share = self.share(queues.len());
        let Some(queue) = queues.get_mut(&key) else { return };
        queue.has_turn = false;
        if queue.under_way >= share {
            return;
        }
        while let Some(sender) = queue.waiting.pop_front() {
            counts.waiting -= 1;
            if let Err(mut undelivered) = sender.send(self.place(key.clone())) {
                // The caller gave up. Dropping the place would lock again.
                undelivered.holder = None;
                continue;
            }
            queue.under_way += 1;
            counts.under_way += 1;
            break;
        }
        if !queue.waiting.is_empty() && queue.under_way < share {
            queue.has_turn = true;
            turns.push_back(key);
        } else {
            forget_idle(queues, key);
        }
    }
}

enum Asked {
    Place(Place),
    Turn(oneshot::Receiver<Place>),
}

fn forget_idle(queues: &mut HashMap<Key, Queue>, key: Key) {
    if let Entry::Occupied(entry) = queues.entry(key)
        && entry.get().under_way == 0
        && entry.get().waiting.is_empty()
    {
        entry.remove();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits() -> WriteLimits {
        WriteLimits {
            under_way_max: 8,
            waiting_per_organization_max: 20,
            waiting_max: 50,
            ..WriteLimits::default()
        }
    }

    fn org(name: &str) -> Key {
        Some(OrgId::from_trusted(name))
    }

    /// Asks for a place; what is not given at once waits.
    fn ask(places: &FairPlaces, name: &str) -> Result<Asked, ProposeError> {
        places.ask(org(name))
    }

    fn given(places: &FairPlaces, name: &str) -> Place {
        match ask(places, name) {
            Ok(Asked::Place(place)) => place,
            Ok(Asked::Turn(_)) => panic!("{name} has to wait"),
            Err(error) => panic!("{error}"),
        }
    }

    fn waiting(places: &FairPlaces, name: &str) -> oneshot::Receiver<Place> {
        match ask(places, name) {
            Ok(Asked::Turn(turn)) => turn,
            Ok(Asked::Place(_)) => panic!("{name} got a place at once"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_flood_of_one_organization_leaves_places_for_the_others() {
        let places = FairPlaces::new(limits());
        let b = given(&places, "b");
        let flood: Vec<_> = (0..6).map(|_| given(&places, "a")).collect();
        let queued: Vec<_> = (0..20).map(|_| waiting(&places, "a")).collect();
        assert!(matches!(ask(&places, "a"), Err(ProposeError::OverShare { limit: 20 })));
        let _c = given(&places, "c");
        assert_eq!(places.counts().under_way, 8);
        assert_eq!(places.counts().waiting, 20);
        assert_eq!(places.counts().refused_share, 1);
        drop((flood, queued, b));
    }

    #[test]
    fn as_many_organizations_as_places_never_wait() {
        let places = FairPlaces::new(WriteLimits::default());
        for _ in 0..100 {
            let held: Vec<_> = (0..256).map(|n| given(&places, &format!("org-{n}"))).collect();
            assert_eq!(places.counts().under_way, held.len() as u64);
        }
        assert_eq!(places.counts(), WriteCounts::default());
    }

    #[test]
    fn whoever_writes_alone_fills_all_places_and_a_newcomer_gets_the_next_one() {
        let places = FairPlaces::new(limits());
        let mut flood: Vec<_> = (0..8).map(|_| given(&places, "a")).collect();
        let mut queued: Vec<_> = (0..5).map(|_| waiting(&places, "a")).collect();
        let mut newcomer = waiting(&places, "b");
        drop(flood.pop());
        let newcomer = newcomer.try_recv().expect("the first place that is free");
        drop(flood.pop());
        assert!(queued.iter_mut().all(|turn| turn.try_recv().is_err()), "above its share");
        drop(newcomer);
        // Alone again; what it was held back from is its own with its next change.
        drop(flood.pop());
        let served = queued.iter_mut().filter_map(|turn| turn.try_recv().ok()).collect::<Vec<_>>();
        assert_eq!((served.len(), places.counts().under_way), (3, 8));
    }

    #[test]
    fn organizations_take_turns_whoever_waits_longer() {
        let places = FairPlaces::new(limits());
        let mut held = vec![given(&places, "x"), given(&places, "y")];
        held.splice(0..0, (0..6).map(|_| given(&places, "a")));
        let mut a: VecDeque<_> = (0..10).map(|_| waiting(&places, "a")).collect();
        let mut b: VecDeque<_> = (0..3).map(|_| waiting(&places, "b")).collect();
        let mut c: VecDeque<_> = (0..1).map(|_| waiting(&places, "c")).collect();
        let mut order = String::new();
        // Those of `a` are released first, so that its share never holds it back.
        for place in held {
            drop(place);
            for (name, queue) in [('a', &mut a), ('b', &mut b), ('c', &mut c)] {
                if let Some(place) = queue.front_mut().and_then(|turn| turn.try_recv().ok()) {
                    order.push(name);
                    queue.pop_front();
                    // Kept under way.
                    std::mem::forget(place);
                }
            }
        }
        assert_eq!(order, "abcababa");
    }

    #[test]
    fn a_caller_that_gave_up_costs_the_next_one_nothing_and_loses_no_place() {
        let places = FairPlaces::new(limits());
        let mut held: Vec<_> = (0..8).map(|_| given(&places, "a")).collect();
        let gone: Vec<_> = (0..5).map(|_| waiting(&places, "a")).collect();
        let mut last = waiting(&places, "a");
        drop(gone);
        drop(held.pop());
        let got = last.try_recv().expect("the first one that still waits gets the place");
        // One that was given but never taken goes back by itself.
        let untaken = waiting(&places, "a");
        drop(held.pop());
        drop(untaken);
        drop((got, held));
        assert_eq!(places.counts(), WriteCounts::default());
        assert!(places.lock().queues.is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn random_work_never_exceeds_a_bound_and_always_drains() {
        use std::hash::{BuildHasher, Hasher, RandomState};
        let seed = RandomState::new().build_hasher().finish();
        let mut state = seed | 1;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let places = FairPlaces::new(limits());
        let (mut held, mut turns) = (Vec::new(), Vec::new());
        for _ in 0..20_000 {
            let before: HashMap<Key, usize> = {
                let state = places.lock();
                state.queues.iter().map(|(key, queue)| (key.clone(), queue.under_way)).collect()
            };
            match random(3) {
                0 => match ask(&places, ["a", "b", "c", "d"][random(4) as usize]) {
                    Ok(Asked::Place(place)) => held.push(place),
                    Ok(Asked::Turn(turn)) => turns.push(turn),
                    Err(_) => {}
                },
                1 if !held.is_empty() => drop(held.swap_remove(random(held.len() as u64) as usize)),
                _ if !turns.is_empty() => {
                    let mut turn: oneshot::Receiver<Place> =
                        turns.swap_remove(random(turns.len() as u64) as usize);
                    match turn.try_recv() {
                        Ok(place) => held.push(place),
                        // Gives up now and then; else goes on waiting.
                        Err(_) if random(4) == 0 => drop(turn),
                        Err(_) => turns.push(turn),
                    }
                }
                _ => {}
            }
            let counts = places.counts();
            assert!(counts.under_way <= 8 && counts.waiting <= 50, "seed {seed}: {counts:?}");
            let state = places.lock();
            let several = state.queues.len() > 1;
            for (key, queue) in &state.queues {
                let grew = queue.under_way > before.get(key).copied().unwrap_or(0);
                let over = queue.under_way > 6;
                assert!(
                    !(several && grew && over),
                    "seed {seed}: {key:?} took more than its share"
                );
            }
            let idle = state.counts.under_way < 8 && !state.turns.is_empty();
            assert!(!idle, "seed {seed}: a place is free while somebody may have it");
        }
        drop(turns);
        drop(held);
        let counts = places.counts();
        assert_eq!((counts.under_way, counts.waiting), (0, 0));
        assert!(places.lock().queues.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_waits_too_long_is_refused_and_frees_its_turn() {
        let places = FairPlaces::new(limits());
        let _held: Vec<_> = (0..8).map(|_| given(&places, "a")).collect();
        let deadline = Instant::now() + Duration::from_secs(1);
        let refused = places.enter(org("a"), deadline).await;
        assert!(matches!(refused, Err(ProposeError::Overloaded)));
        assert_eq!(places.counts().refused_full, 1);
    }
}
