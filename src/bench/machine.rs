//! What the kernel says about this machine and its processes.

use std::process::Command;

use serde::Serialize;

/// Clock ticks of `/proc`, per second: the same on every Linux that has users.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor seconds that a process has used; 0 where it has gone.
pub(super) fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold anything, so the fields are counted from its closing parenthesis.
    let Some((_, fields)) = stat.rsplit_once(')') else { return 0.0 };
    let ticks = |place: usize| -> f64 {
        fields.split_whitespace().nth(place).and_then(|field| field.parse().ok()).unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// Resident memory of a process, MiB; `None` where it has gone.
pub(super) fn resident_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Where a run took place.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    processors: usize,
    processor: String,
    memory_gib: f64,
    kernel: String,
}

impl Machine {
    /// This one.
    pub(super) fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, name: &str| -> String {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let kib: f64 =
            memory.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        Self {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            processor: value(&read("/proc/cpuinfo"), "model name"),
            memory_gib: (kib / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }

    /// In a line, for people.
    pub(super) fn describe(&self) -> String {
        let Self { processors, processor, memory_gib, kernel } = self;
        format!("{processors} × {processor}, {memory_gib} GiB, Linux {kernel}")
    }
}

/// The version that a program prints of itself: the first word with a digit, a dot and a digit.
pub(super) fn version(program: &std::path::Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_used_a_processor() {
        assert!(resident_mib(std::process::id()).expect("it runs") > 1.0);
        assert!(cpu_seconds(std::process::id()) >= 0.0);
        assert!(resident_mib(u32::MAX).is_none());
    }
}
