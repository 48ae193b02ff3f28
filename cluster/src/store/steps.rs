//! The steps of storage work by name, so that a crash test can end the process between any two.
//!
//! `step!(WalSynced);` marks the place right after a step. In the unit tests of this crate it counts,
//! and kills the process where the test asked for that (see `tests::steps`); in every other build it
//! is nothing at all, so no build that anybody runs can be made to fail by it.

/// Marks the place after a step: `step!(Name)`. With an expression, `step!(Name, half)`, a process
/// that is to be killed here does that first: half of a step that one call makes whole.
macro_rules! step {
    ($name:ident) => {
        #[cfg(test)]
        $crate::store::steps::reached($crate::store::steps::Step::$name, || {});
    };
    ($name:ident, $half:expr) => {
        #[cfg(test)]
        $crate::store::steps::reached($crate::store::steps::Step::$name, || drop($half));
    };
}
pub(super) use step;

/// Plants a fault that a test must find: does what it is given, where a test asked for that.
macro_rules! fault {
    ($name:ident, $doing:expr) => {
        #[cfg(test)]
        if $crate::store::steps::is_planted(stringify!($name)) {
            $doing
        }
    };
}
pub(super) use fault;

#[cfg(test)]
pub(super) use registry::{FAULT, KILL_AT, Step, hits, is_planted, reached};

#[cfg(test)]
mod registry {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, OnceLock, PoisonError};

    macro_rules! steps {
        ($($name:ident)*) => {
            /// What has just been done.
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
            pub(in crate::store) enum Step { $($name,)* }

            impl Step {
                pub(in crate::store) const ALL: &[Step] = &[$(Step::$name,)*];
            }
        };
    }

    steps! {
        // Opening a directory.
        DirectoryLocked FormatTemporary FormatRenamed FormatWritten SnapshotFolderMade DatabaseOpened
        MarkCreated IdentityWritten IdentitySynced StateColumnCreated StrayFileRemoved
        // The log and the vote.
        AppendWritten VoteWritten VoteKept CommittedWritten TruncateAllowed TruncateWritten
        PurgeWritten PurgeSynced PurgeFilesDeleted
        // The flusher.
        JobsTaken WalHalfWritten WalSynced MarkRecorded MarkSynced JobDone LastSync
        // The state.
        ApplyWritten ApplyPublished ApplyAnnounced AdoptWritten AdoptSynced
        // Sending, receiving and installing a snapshot.
        SendCreated SendSynced
        ReceiveCreated ReceiveWritten ReceiveSynced ReceiveChecked InstallFolderMade
        InstallColumnCreated InstallTableBegun InstallTableFinished InstallTableLoaded
        InstallFolderRemoved SwitchWritten SwitchSynced InstallPublished ColumnDropped
    }

    /// `NAME:HIT`: kills the process when the step is reached for the HIT-th time.
    pub(in crate::store) const KILL_AT: &str = "PEAT_STORE_TEST_KILL_AT";

    /// Name of the fault that the process has.
    pub(in crate::store) const FAULT: &str = "PEAT_STORE_TEST_FAULT";

    static HITS: Mutex<BTreeMap<Step, u64>> = Mutex::new(BTreeMap::new());

    pub(in crate::store) fn reached(step: Step, half: impl FnOnce()) {
        static PLAN: OnceLock<Option<(Step, u64)>> = OnceLock::new();
        let plan = PLAN.get_or_init(|| std::env::var(KILL_AT).ok().map(|text| parse(&text)));
        let hits = {
            let mut all = HITS.lock().unwrap_or_else(PoisonError::into_inner);
            let hits = all.entry(step).or_default();
            *hits += 1;
            *hits
        };
        if *plan == Some((step, hits)) {
            half();
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
            // The signal ends all threads, but perhaps not before this one's next instruction.
            loop {
                std::thread::park();
            }
        }
    }

    /// How often each step was reached so far.
    pub(in crate::store) fn hits() -> BTreeMap<Step, u64> {
        HITS.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(in crate::store) fn is_planted(fault: &str) -> bool {
        static PLANTED: OnceLock<Option<String>> = OnceLock::new();
        PLANTED.get_or_init(|| std::env::var(FAULT).ok()).as_deref() == Some(fault)
    }

    fn parse(text: &str) -> (Step, u64) {
        let (name, hit) = text.split_once(':').expect("NAME:HIT");
        let step =
            Step::ALL.iter().find(|step| format!("{step:?}") == name).expect("a step's name");
        (*step, hit.parse().expect("a number"))
    }
}
