//! What a node writes by itself: units that move, sensors, messages, contacts that come and go.
//!
//! | collection | mode | what happens |
//! |---|---|---|
//! | `platforms` | latest only | units move |
//! | `sensors` | full history | readings change |
//! | `messages` | full history | new ones; some are deleted softly |
//! | `tracks` | latest only | contacts appear, move, and end with a tombstone |

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::{Change, NodeHandle};

/// Most writes a second; a higher rate is lowered to it.
pub const WRITES_PER_SECOND_MAX: u32 = 10_000;
/// How many undeleted messages exist at most; then the oldest is deleted.
const MESSAGES_MAX: usize = 32;
/// How many tracks exist at most; then the oldest ends. Few, since the more there are, the seldomer a
/// new one appears.
const TRACKS_MAX: usize = 8;

/// What a node writes: the same changes for the same seed, node and units.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Workload {
    /// Decides everything but the time.
    pub seed: u64,
    /// How many changes it writes each second.
    pub writes_per_second: u32,
    /// How many units and sensors there are.
    pub units: u32,
    /// Distinguishes the documents of several nodes: part of every id.
    pub prefix: String,
}

impl Workload {
    /// Returns the changes, without end.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes {
            random: Random(self.seed),
            units: u64::from(self.units.max(1)),
            prefix: self.prefix.clone(),
            next_number: 0,
            messages: VecDeque::new(),
            tracks: VecDeque::new(),
        }
    }

    /// Writes until it is dropped.
    pub(super) async fn run(self, node: NodeHandle) {
        let rate = self.writes_per_second.clamp(1, WRITES_PER_SECOND_MAX);
        let mut ticks = interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for change in self.changes() {
            ticks.tick().await;
            if let Err(error) = node.write(&change) {
                // A peer may have deleted what this node was about to change.
                tracing::debug!(%error, "change not written");
            }
        }
    }
}

/// The changes of a [`Workload`].
#[derive(Clone, Debug)]
pub struct Changes {
    random: Random,
    units: u64,
    prefix: String,
    next_number: u64,
    messages: VecDeque<String>,
    tracks: VecDeque<String>,
}

impl Iterator for Changes {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        self.next_number += 1;
        Some(match self.random.below(100) {
            0..50 => self.moved_unit(),
            50..75 => self.reading(),
            75..90 => self.message(),
            _ => self.track(),
        })
    }
}

impl Changes {
    fn moved_unit(&mut self) -> Change {
        let unit = self.random.below(self.units);
        let key = format!("platforms:{}-unit-{unit}", self.prefix);
        let fields = json!({
            "name": format!("unit {unit}"),
            "position": self.position(),
            "heading": self.random.below(360),
            "fuel_percent": self.random.below(101),
            "sequence": self.next_number,
        });
        put(key, fields)
    }

    fn reading(&mut self) -> Change {
        let sensor = self.random.below(self.units);
        let key = format!("sensors:{}-sensor-{sensor}", self.prefix);
        let fields = json!({
            "kind": "temperature",
            "celsius": self.thousandths(-20_000, 60_000),
            "healthy": self.random.below(20) != 0,
            "sequence": self.next_number,
        });
        put(key, fields)
    }

    fn message(&mut self) -> Change {
        if self.messages.len() >= MESSAGES_MAX
            && let Some(key) = self.messages.pop_front()
        {
            return Change::SoftDelete { key, reason: "read".to_owned() };
        }
        let key = format!("messages:{}-{}", self.prefix, self.next_number);
        self.messages.push_back(key.clone());
        let fields = json!({
            "from": format!("unit {}", self.random.below(self.units)),
            "text": format!("message {}: grid {:04}", self.next_number, self.random.below(10_000)),
            "tags": ["traffic", format!("priority-{}", self.random.below(3))],
        });
        put(key, fields)
    }

    fn track(&mut self) -> Change {
        if self.tracks.len() >= TRACKS_MAX
            && let Some(key) = self.tracks.pop_front()
        {
            return Change::Delete { key, reason: Some("lost".to_owned()) };
        }
        let known = u64::try_from(self.tracks.len()).unwrap_or(0);
        let index = usize::try_from(self.random.below(known + 1)).unwrap_or(0);
        let key = match self.tracks.get(index) {
            Some(key) => key.clone(),
            None => {
                let key = format!("tracks:{}-{}", self.prefix, self.next_number);
                self.tracks.push_back(key.clone());
                key
            }
        };
        let fields = json!({
            "position": self.position(),
            "speed_mps": self.thousandths(0, 30_000),
            "sequence": self.next_number,
        });
        put(key, fields)
    }

    fn position(&mut self) -> Value {
        json!({
            "latitude": self.thousandths(48_000, 1_000),
            "longitude": self.thousandths(11_000, 1_000),
        })
    }

    /// Returns a number between `from` and `from + width` thousandths.
    fn thousandths(&mut self, from: i32, width: u64) -> f64 {
        let offset = i32::try_from(self.random.below(width)).unwrap_or(i32::MAX);
        f64::from(from.saturating_add(offset)) / 1000.0
    }
}

fn put(key: String, fields: Value) -> Change {
    let fields = match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    Change::Put { key, fields }
}

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn workload(seed: u64) -> Workload {
        Workload { seed, writes_per_second: 1, units: 3, prefix: "a".to_owned() }
    }

    #[test]
    fn the_same_seed_writes_the_same_and_another_does_not() {
        let take = |seed| workload(seed).changes().take(500).collect::<Vec<_>>();
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
    }

    #[test]
    fn every_kind_of_change_occurs_and_deleted_tracks_stay_deleted() {
        let mut deleted = HashSet::new();
        let mut seen = HashSet::new();
        for change in workload(7).changes().take(5000) {
            let (kind, key) = match change {
                Change::Put { key, .. } => ("put", key),
                Change::SoftDelete { key, .. } => ("soft", key),
                Change::Delete { key, .. } => ("delete", key),
            };
            assert!(!deleted.contains(&key), "{kind} {key} after its deletion");
            let collection = key.split(':').next().unwrap_or_default().to_owned();
            seen.insert((kind, collection));
            if kind != "put" {
                deleted.insert(key);
            }
        }
        let expected = [
            ("put", "platforms"),
            ("put", "sensors"),
            ("put", "messages"),
            ("put", "tracks"),
            ("soft", "messages"),
            ("delete", "tracks"),
        ];
        assert_eq!(seen, expected.map(|(kind, name)| (kind, name.to_owned())).into());
    }
}
