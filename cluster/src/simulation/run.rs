//! One seed's run: set up, trouble, healing, progress.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use peat_gateway_state::Outcome;

use super::bugs::{self, Bug};
use super::history::{Answer, Ask, History};
use super::host::{self, Host, Shared};
use super::invariants::{self, Invariant, Violation};
use super::observe::Seen;
use super::plan::Plan;
use super::random::Random;
use super::trace::Trace;
use super::{clients, disk, entropy, leader_work, panics};
use crate::handle::{Handle, Leadership};

/// Simulated time between two looks.
const STEP: Duration = Duration::from_millis(1);
/// How long a cluster may take to form, and how long it may take to be well again.
const PATIENCE_MS: u64 = 40_000;
/// Registers that clients write and read.
const REGISTERS: usize = 3;

/// Something to do at a later time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wake {
    Start(usize),
    StartStopped(usize),
    Replace(usize),
    HealLink(usize, usize),
    NormalLink(usize, usize),
    NormalDisk(usize),
}

/// A run under way.
pub(super) struct Run<'s> {
    pub(super) sim: turmoil::Sim<'s>,
    pub(super) hosts: Vec<Shared>,
    pub(super) random: Random,
    pub(super) seen: Seen,
    plan: Plan,
    history: Rc<RefCell<History>>,
    invariants: Vec<Box<dyn Invariant>>,
    trace: Trace,
    wakes: BTreeMap<u64, Vec<Wake>>,
    up: Vec<bool>,
    counts: BTreeMap<String, u64>,
    values: u64,
}

/// What a run showed.
pub(super) struct Report {
    pub(super) violation: Option<Violation>,
    pub(super) trace: Vec<String>,
    pub(super) trace_hash: u64,
    pub(super) counts: BTreeMap<String, u64>,
}

/// Runs a seed on this thread, which can do nothing else afterwards.
pub(super) fn run(seed: u64, bug: Option<Bug>, directory: &Path) -> Report {
    entropy::close(seed);
    bugs::plant(bug);
    panics::watch();
    let mut random = Random::new(seed ^ 0x5157_1a70);
    let plan = Plan::new(&mut random);
    disk::make(plan.hosts, &mut random);
    let history = Rc::new(RefCell::new(History::default()));
    let timing = host::timing(plan.snapshot_entries, plan.entries_kept);
    let hosts: Vec<Shared> = (0..plan.hosts)
        .map(|place| Host::new(place, plan.hosts, directory, &timing, &history))
        .collect();
    let mut sim = turmoil::Builder::new()
        .rng_seed(random.next())
        .tick_duration(STEP)
        .simulation_duration(Duration::from_secs(3_600))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(plan.latency_ms_max))
        .tcp_capacity(4_096)
        .enable_random_order()
        .build();
    for host in &hosts {
        let (name, host) = (host.borrow().name.clone(), host.clone());
        sim.host(name, move || host::software(host.clone()));
    }
    // Ending nodes one by one costs time and shows nothing, also in a panic: the process ends.
    let mut run = ManuallyDrop::new(Run {
        sim,
        up: vec![true; plan.hosts],
        seen: Seen::new(plan.hosts),
        hosts,
        random,
        plan,
        history,
        invariants: invariants::all(),
        trace: Trace::default(),
        wakes: BTreeMap::new(),
        counts: BTreeMap::new(),
        values: 0,
    });
    let begin = format!("seed {seed} bug {bug:?} plan {:?}", run.plan);
    run.note(&begin);
    let violation = run.phases().err();
    if let Some(violation) = &violation {
        run.note(&format!("VIOLATION of {}: {}", violation.invariant, violation.what));
    }
    run.summarize();
    Report {
        violation,
        trace_hash: run.trace.hash(),
        trace: std::mem::take(&mut run.trace.lines),
        counts: std::mem::take(&mut run.counts),
    }
}

impl Run<'_> {
    fn phases(&mut self) -> Result<(), Violation> {
        if !self.plan.trouble_at_once {
            self.set_up()?;
        }
        self.trouble()?;
        self.heal();
        if self.plan.trouble_at_once {
            self.set_up()?;
        }
        self.progress()
    }

    /// Waits for the cluster and makes what the workload works on.
    fn set_up(&mut self) -> Result<(), Violation> {
        let begin = self.now_ms();
        let done = Rc::new(Cell::new(false));
        while !done.get() {
            if self.now_ms() > begin + PATIENCE_MS {
                return Err(no_progress("the cluster could not be set up"));
            }
            if self.now_ms().is_multiple_of(500)
                && let Some(leader) = self.leader()
                && let Leadership::Leader { term, .. } = self.seen.nodes[leader].leadership
            {
                let done = done.clone();
                self.on_node(leader, move |handle| async move {
                    if make(&handle, term).await.is_some() {
                        done.set(true);
                    }
                });
            }
            self.step()?;
        }
        self.note("set up");
        Ok(())
    }

    fn trouble(&mut self) -> Result<(), Violation> {
        let end = self.now_ms() + self.plan.trouble_ms;
        let mut next_fault = self.now_ms() + self.random.of(0..self.plan.fault_pause_ms_max);
        let mut next_client = self.now_ms();
        while self.now_ms() < end {
            if self.now_ms() >= next_fault {
                let faults = self.plan.faults.clone();
                let fault = self.random.choose(&faults);
                self.inflict(fault);
                next_fault = self.now_ms() + self.random.of(1..self.plan.fault_pause_ms_max);
            }
            if self.now_ms() >= next_client && !self.plan.trouble_at_once {
                self.ask_something();
                next_client = self.now_ms() + self.random.of(1..self.plan.client_pause_ms_max);
            }
            self.step()?;
        }
        Ok(())
    }

    /// Ends all trouble: everything that is scheduled happens now.
    fn heal(&mut self) {
        self.note("heal");
        for wake in std::mem::take(&mut self.wakes).into_values().flatten() {
            self.wake(wake);
        }
    }

    /// Demands that the cluster be well again: one leader whose work goes on, all members equal, every
    /// member answers.
    fn progress(&mut self) -> Result<(), Violation> {
        let begin = self.now_ms();
        let journal = |seen: &Seen| seen.running().map(|node| node.cursor).max().unwrap_or(0);
        let journal_before = journal(&self.seen);
        let mut asked: Vec<(usize, u64)> = Vec::new();
        loop {
            if self.now_ms() > begin + PATIENCE_MS {
                return Err(no_progress(&self.what_is_missing()));
            }
            if self.now_ms().is_multiple_of(200) {
                // A member that doesn't answer now is asked again.
                asked = self.ask_members();
            }
            self.step()?;
            let history = self.history.borrow();
            let answered = !asked.is_empty()
                && asked.iter().all(|(_, number)| {
                    matches!(
                        history.operations[number].answer,
                        Some(Answer::Written { .. } | Answer::Registers { .. })
                    )
                });
            drop(history);
            if answered && journal(&self.seen) > journal_before && self.members_agree() {
                self.note("well again");
                return Ok(());
            }
        }
    }

    fn ask_members(&mut self) -> Vec<(usize, u64)> {
        let mut asked = Vec::new();
        for place in self.members() {
            let write = self.new_write(false);
            asked.push((place, self.ask(place, write)));
            asked.push((place, self.ask(place, Ask::Read)));
        }
        asked
    }

    /// The places of the members, as the leader knows them.
    fn members(&self) -> Vec<usize> {
        let Some(leader) = self.leader() else { return Vec::new() };
        let host = self.hosts[leader].borrow();
        let Some(running) = &host.running else { return Vec::new() };
        let ids = running.handle.inner.member_ids();
        (0..self.hosts.len()).filter(|p| ids.contains(&self.seen.nodes[*p].node_id)).collect()
    }

    fn members_agree(&self) -> bool {
        let mut members = self.members().into_iter().map(|place| &self.seen.nodes[place]);
        let Some(first) = members.next() else { return false };
        members.all(|node| {
            (node.applied, node.state_hash, node.end())
                == (first.applied, first.state_hash, first.end())
        })
    }

    fn what_is_missing(&self) -> String {
        let history = self.history.borrow();
        let last: Vec<_> = history.operations.values().rev().take(12).collect();
        format!("members {:?}, agree: {}, {last:#?}", self.members(), self.members_agree())
    }

    /// One step of everything, and a look at it.
    fn step(&mut self) -> Result<(), Violation> {
        entropy::set_elapsed(self.sim.elapsed());
        self.sim.step().expect("a host's software returns no error");
        let now = self.now_ms();
        for wake in self.wakes.remove(&now).unwrap_or_default() {
            self.wake(wake);
        }
        self.seen.look(&self.hosts);
        self.trace.note_nodes(now, &self.seen);
        {
            let history = self.history.borrow();
            for number in &history.answered {
                let operation = &history.operations[number];
                let (ask, answer) = (&operation.ask, &operation.answer);
                self.trace.note(now, &format!("{number} {ask:?} {answer:?}"));
            }
        }
        let checked = invariants::check(&mut self.invariants, &self.seen, &self.history.borrow());
        self.history.borrow_mut().answered.clear();
        checked?;
        for place in 0..self.hosts.len() {
            if std::mem::take(&mut self.hosts[place].borrow_mut().left) {
                self.count("removed nodes");
                self.note(&format!("node {place} was removed and has left"));
                self.up[place] = false;
                let after_ms = self.random.of(100..2_000);
                self.schedule(after_ms, Wake::Replace(place));
            }
        }
        for host in &self.hosts {
            let failed = host.borrow_mut().failed.take();
            if let Some(reason) = failed {
                let what = format!("node {}: {reason}", host.borrow().place);
                return Err(Violation { invariant: "nodes go on", what });
            }
        }
        match panics::take() {
            Some(what) => Err(Violation { invariant: "no panic", what }),
            None => Ok(()),
        }
    }

    fn wake(&mut self, wake: Wake) {
        let name = host::name;
        match wake {
            Wake::Start(place) => {
                if !self.up[place] {
                    self.note(&format!("start node {place}"));
                    self.sim.bounce(name(place));
                    self.up[place] = true;
                }
            }
            Wake::StartStopped(place) => {
                if std::mem::take(&mut self.hosts[place].borrow_mut().stopped) {
                    self.wake(Wake::Start(place));
                } else {
                    self.schedule(50, Wake::StartStopped(place));
                }
            }
            Wake::Replace(place) => {
                self.note(&format!("start a new node at {place}"));
                self.hosts[place].borrow_mut().replace();
                self.sim.bounce(name(place));
                self.up[place] = true;
            }
            Wake::HealLink(a, b) => {
                self.sim.release(name(a), name(b));
                self.sim.repair(name(a), name(b));
            }
            Wake::NormalLink(a, b) => {
                let ms = self.plan.latency_ms_max;
                self.sim.set_link_latency(name(a), name(b), Duration::from_millis(1));
                self.sim.set_link_max_message_latency(name(a), name(b), Duration::from_millis(ms));
                self.sim.set_link_fail_rate(name(a), name(b), 0.0);
                self.sim.release(name(a), name(b));
            }
            Wake::NormalDisk(place) => disk::set_speed(place, 2),
        }
    }

    /// Cuts a node's power; `silently` keeps its connections from saying so.
    pub(super) fn cut_power(&mut self, place: usize, silently: bool) {
        self.up[place] = false;
        let name = host::name(place);
        self.hosts[place].borrow_mut().cut_power();
        let others: Vec<String> =
            (0..self.hosts.len()).filter(|o| *o != place).map(host::name).collect();
        if silently {
            for other in &others {
                self.sim.partition(name.as_str(), other.as_str());
            }
        }
        self.sim.crash(name.as_str());
        if silently {
            for other in &others {
                self.sim.repair(name.as_str(), other.as_str());
            }
        }
    }

    pub(super) fn stop_in_order(&mut self, place: usize) {
        if !self.up[place] || self.hosts[place].borrow().running.is_none() {
            return;
        }
        let down_ms = self.random.of(200..3_000);
        self.note(&format!("stop node {place} in order for {down_ms} ms"));
        self.up[place] = false;
        self.hosts[place].borrow_mut().stop();
        self.schedule(down_ms, Wake::StartStopped(place));
    }

    fn ask_something(&mut self) {
        let place = self.any_place();
        let ask = match self.random.of(0..100) {
            0..45 => self.new_write(false),
            45..60 => self.new_write(true),
            60..85 => Ask::Read,
            _ => {
                let told = self.history.borrow().told;
                Ask::ReadStale { min_index: if self.random.chance(50) { told } else { 0 } }
            }
        };
        self.ask(place, ask);
    }

    fn new_write(&mut self, retries: bool) -> Ask {
        self.values += 1;
        let register = self.random.of(0..REGISTERS as u64) as usize;
        Ask::Write { register, value: format!("value {}", self.values), retries }
    }

    fn ask(&mut self, place: usize, ask: Ask) -> u64 {
        let number = clients::begin(&self.hosts[place], REGISTERS, ask, &self.history);
        self.trace.note(self.now_ms(), &format!("{number} asks node {place}"));
        number
    }

    /// Runs something on a node's host.
    pub(super) fn on_node<F: Future<Output = ()> + 'static>(
        &self,
        place: usize,
        work: impl FnOnce(Handle) -> F,
    ) {
        let host = self.hosts[place].borrow();
        if let Some(running) = &host.running {
            host.run(work(running.handle.clone()));
        }
    }

    pub(super) fn schedule(&mut self, after_ms: u64, wake: Wake) {
        self.wakes.entry(self.now_ms() + after_ms.max(1)).or_default().push(wake);
    }

    pub(super) fn is_up(&self, place: usize) -> bool {
        self.up[place]
    }

    pub(super) fn any_place(&mut self) -> usize {
        self.random.of(0..self.hosts.len() as u64) as usize
    }

    pub(super) fn other_place(&mut self, place: usize) -> usize {
        let hosts = self.hosts.len() as u64;
        ((place as u64 + self.random.of(1..hosts)) % hosts) as usize
    }

    pub(super) fn note(&mut self, what: &str) {
        self.trace.note(self.now_ms(), what);
    }

    pub(super) fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    fn now_ms(&self) -> u64 {
        self.sim.elapsed().as_millis() as u64
    }

    fn summarize(&mut self) {
        let history = self.history.clone();
        let history = history.borrow();
        for operation in history.operations.values() {
            match operation.answer {
                Some(Answer::Written { .. }) => self.count("written"),
                Some(Answer::Unknown(_)) => self.count("unknown"),
                Some(Answer::Nothing(_)) => self.count("nothing"),
                Some(Answer::Registers { .. }) => self.count("read"),
                _ => {}
            }
        }
        let terms = self.seen.nodes.iter().map(|node| node.term).max().unwrap_or(0);
        let events = self.seen.events;
        self.counts.insert("truncated logs".to_owned(), events.truncated_logs);
        self.counts.insert("installed snapshots".to_owned(), events.installed_snapshots);
        self.counts.insert("joint memberships".to_owned(), events.joint_memberships);
        self.counts.insert("terms".to_owned(), terms);
        self.counts.insert("committed".to_owned(), self.seen.known_end);
        self.counts.insert("simulated ms".to_owned(), self.now_ms());
        self.counts.insert("leader work".to_owned(), history.leader_work.len() as u64);
    }
}

async fn make(handle: &Handle, term: u64) -> Option<()> {
    let timeout = Duration::from_secs(2);
    let settings = leader_work::initialize(term, handle.cluster_id()?);
    handle.propose_leader_work(&settings, timeout).await.ok()?;
    for envelope in leader_work::set_up(REGISTERS) {
        let committed = handle.propose(&envelope, timeout).await.ok()?;
        // What is there already was made by an earlier try.
        if let Outcome::Refused(refusal) = committed.outcome
            && refusal.code != peat_gateway_state::outcome::code::ALREADY_EXISTS
        {
            panic!("the set-up was refused: {refusal:?}");
        }
    }
    Some(())
}

fn no_progress(what: &str) -> Violation {
    let what = format!("not within {PATIENCE_MS} ms after healing: {what}");
    Violation { invariant: "progress after healing", what }
}
