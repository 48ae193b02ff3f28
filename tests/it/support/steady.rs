//! Clients of which no request may fail: writers and readers that note every failure and the longest gap.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::api::{Api, Written};

/// Clients at work.
pub struct Steady {
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

struct Shared {
    running: AtomicBool,
    writes: Vec<AtomicU64>,
    reads: AtomicU64,
    gaps: Mutex<Gaps>,
    failures: Mutex<Vec<String>>,
}

struct Gaps {
    last: Instant,
    longest: Duration,
}

impl Steady {
    /// Creates an organisation per writer and starts writers and as many readers, each with a connection
    /// of its own to one of `urls`.
    pub async fn start(urls: &[String], clients: usize) -> Self {
        let api = Api::new(urls.to_vec());
        for number in 0..clients {
            api.create("/orgs", &json!({ "org_id": org(number), "display_name": "0" })).await;
        }
        let shared = Arc::new(Shared {
            running: AtomicBool::new(true),
            writes: (0..clients).map(|_| AtomicU64::new(0)).collect(),
            reads: AtomicU64::new(0),
            gaps: Mutex::new(Gaps { last: Instant::now(), longest: Duration::ZERO }),
            failures: Mutex::default(),
        });
        let mut tasks = Vec::new();
        for number in 0..clients {
            let api = || Api::new(vec![urls[number % urls.len()].clone()]);
            tasks.push(tokio::spawn(write(shared.clone(), number, api())));
            tasks.push(tokio::spawn(read(shared.clone(), number, api())));
        }
        Self { shared, tasks }
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged()
    }

    /// Waits until `more` further writes were acknowledged.
    pub async fn go_on(&self, more: u64) {
        let target = self.shared.acknowledged() + more;
        super::wait_for("acknowledged writes", Duration::from_secs(60), || async {
            let now = self.shared.acknowledged();
            if now >= target { Ok(()) } else { Err(format!("{now} of {target}")) }
        })
        .await;
    }

    /// Begins to look for the longest gap between two acknowledged writes.
    pub fn reset_gap(&self) {
        let mut gaps = self.shared.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        *gaps = Gaps { last: Instant::now(), longest: Duration::ZERO };
    }

    /// The longest time without an acknowledged write since then.
    pub fn longest_gap(&self) -> Duration {
        let gaps = self.shared.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.longest.max(gaps.last.elapsed())
    }

    /// Fails where any request did.
    pub fn check(&self, when: &str) {
        let failures = self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let first: Vec<_> = failures.iter().take(10).collect();
        assert!(failures.is_empty(), "{when}: {} requests failed: {first:#?}", failures.len());
    }

    /// Stops the clients and checks that every register holds exactly its last write.
    pub async fn finish(self, api: &Api) {
        self.shared.running.store(false, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("a client doesn't panic");
        }
        for (number, written) in self.shared.writes.iter().enumerate() {
            let path = format!("/orgs/{}", org(number));
            let found = super::wait_for("a read", Duration::from_secs(30), || api.get_json(&path));
            let found = found.await["display_name"].clone();
            let expected = written.load(Ordering::SeqCst).to_string();
            assert_eq!(found, expected.as_str(), "{path} doesn't hold what was acknowledged last");
        }
        let reads = self.shared.reads.load(Ordering::SeqCst);
        println!("{} writes and {reads} reads were answered", self.shared.acknowledged());
        assert!(reads > 0, "nobody could read");
    }
}

impl Shared {
    fn acknowledged(&self) -> u64 {
        self.writes.iter().map(|count| count.load(Ordering::SeqCst)).sum()
    }

    fn failed(&self, what: String) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

fn org(number: usize) -> String {
    format!("steady-{number}")
}

async fn write(shared: Arc<Shared>, number: usize, api: Api) {
    let path = format!("/orgs/{}", org(number));
    while shared.running.load(Ordering::SeqCst) {
        let value = shared.writes[number].load(Ordering::SeqCst) + 1;
        let body = json!({ "display_name": value.to_string() });
        match api.patch_once(&path, &body).await {
            Written::Done => {
                shared.writes[number].store(value, Ordering::SeqCst);
                let mut gaps = shared.gaps.lock().unwrap_or_else(PoisonError::into_inner);
                gaps.longest = gaps.longest.max(gaps.last.elapsed());
                gaps.last = Instant::now();
            }
            Written::Refused(why) => shared.failed(format!("write refused: {why}")),
            Written::Unknown(why) => shared.failed(format!("write unknown: {why}")),
        }
    }
}

/// Reads its own register: never below what was acknowledged before the read began.
async fn read(shared: Arc<Shared>, number: usize, api: Api) {
    let path = format!("/orgs/{}", org(number));
    while shared.running.load(Ordering::SeqCst) {
        let floor = shared.writes[number].load(Ordering::SeqCst);
        match api.get(&path).await {
            Ok(answer) if answer.status == 200 => {
                let text = answer.json()["display_name"].as_str().map(str::to_owned);
                let value: Option<u64> = text.and_then(|text| text.parse().ok());
                if value.is_none_or(|value| value < floor) {
                    shared.failed(format!("{path}: {floor} was acknowledged, {value:?} was read"));
                }
                shared.reads.fetch_add(1, Ordering::SeqCst);
            }
            Ok(answer) => shared.failed(format!("read: {} {}", answer.status, answer.body)),
            Err(error) => shared.failed(format!("read: {error}")),
        }
    }
}
