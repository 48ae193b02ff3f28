//! Writers that keep a ledger: what was acknowledged must be there, whatever was done to the nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

use super::api::{Api, Written};
use super::wait_for;

/// Writers in the background, one register (an organisation's display name) each.
pub struct Load {
    registers: Vec<Arc<Register>>,
    running: Arc<AtomicBool>,
    /// Writers hold it to read, one write at a time.
    pause: Arc<RwLock<()>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

struct Register {
    org: String,
    acknowledged: AtomicU64,
    attempted: AtomicU64,
}

impl Load {
    /// Creates `writers` organisations and starts to count each one's display name up.
    pub async fn start(api: &Api, writers: usize) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let pause = Arc::new(RwLock::new(()));
        let mut registers = Vec::new();
        let mut tasks = Vec::new();
        for number in 0..writers {
            let org = format!("ledger-{number}");
            api.create("/orgs", &json!({ "org_id": org, "display_name": "0" })).await;
            let register = Arc::new(Register {
                org,
                acknowledged: AtomicU64::new(0),
                attempted: AtomicU64::new(0),
            });
            registers.push(register.clone());
            let writer = count_up(register, api.clone(), running.clone(), pause.clone());
            tasks.push(tokio::spawn(writer));
        }
        Self { registers, running, pause, tasks }
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.registers.iter().map(|r| r.acknowledged.load(Ordering::SeqCst)).sum()
    }

    /// What was acknowledged so far, by organisation.
    pub fn floors(&self) -> Vec<(String, u64)> {
        let floor = |register: &Arc<Register>| register.acknowledged.load(Ordering::SeqCst);
        self.registers.iter().map(|register| (register.org.clone(), floor(register))).collect()
    }

    /// Keeps the writers from writing while the guard lives; no write is under way when it returns.
    pub async fn pause(&self) -> OwnedRwLockWriteGuard<()> {
        self.pause.clone().write_owned().await
    }

    /// Checks every register: not below what was acknowledged, not above what was attempted.
    pub async fn check(&self, api: &Api) {
        for register in &self.registers {
            let floor = register.acknowledged.load(Ordering::SeqCst);
            let path = format!("/orgs/{}", register.org);
            let org = wait_for("a read", Duration::from_secs(30), || api.get_json(&path)).await;
            let ceiling = register.attempted.load(Ordering::SeqCst);
            let value: u64 = org["display_name"]
                .as_str()
                .and_then(|text| text.parse().ok())
                .expect("the display name is a number");
            assert!(
                (floor..=ceiling).contains(&value),
                "{}: acknowledged {floor}, attempted {ceiling}, read {value}",
                register.org
            );
        }
    }

    /// Lets the writers end, and keeps the ledger.
    pub async fn stop_writing(&mut self) {
        self.running.store(false, Ordering::SeqCst);
        for task in self.tasks.drain(..) {
            task.await.expect("a writer doesn't panic");
        }
    }

    /// Stops the writers.
    pub async fn stop(self) -> u64 {
        self.running.store(false, Ordering::SeqCst);
        let total = self.acknowledged();
        for task in self.tasks {
            task.await.expect("a writer doesn't panic");
        }
        total
    }
}

async fn count_up(
    register: Arc<Register>,
    api: Api,
    running: Arc<AtomicBool>,
    pause: Arc<RwLock<()>>,
) {
    let path = format!("/orgs/{}", register.org);
    while running.load(Ordering::SeqCst) {
        let _writing = pause.read().await;
        let value = register.attempted.fetch_add(1, Ordering::SeqCst) + 1;
        let body = json!({ "display_name": value.to_string() });
        // Only an acknowledgement counts; after anything else the next attempt writes a higher value,
        // so that a late success of this one could only be seen below it and above the floor.
        match api.patch_once(&path, &body).await {
            Written::Done => register.acknowledged.store(value, Ordering::SeqCst),
            Written::Refused(_) | Written::Unknown(_) => {
                tokio::time::sleep(super::POLL_INTERVAL).await;
            }
        }
    }
}
