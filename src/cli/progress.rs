//! How far long work is, on stderr: one line that changes on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use peat_gateway_cluster::backup::Progress;

/// Between two looks on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);
/// Between two lines in a log.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Shows how far work is.
pub(super) struct Meter {
    doing: &'static str,
    terminal: bool,
    began: Instant,
    shown: Option<Instant>,
}

impl Meter {
    /// Begins; `doing` says what, as in `saving`.
    pub(super) fn new(doing: &'static str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { doing, terminal, began: Instant::now(), shown: None }
    }

    /// Shows how far it is, unless that was shown just now.
    pub(super) fn show(&mut self, progress: Progress) {
        let interval = if self.terminal { TERMINAL_INTERVAL } else { LOG_INTERVAL };
        let ended = progress.rows_total > 0 && progress.rows == progress.rows_total;
        if !ended && self.shown.is_some_and(|shown| shown.elapsed() < interval) {
            return;
        }
        self.shown = Some(Instant::now());
        let line = line(self.doing, progress, self.began.elapsed());
        // Nobody is left to tell where stderr is closed.
        if self.terminal {
            let end = if ended { "\n" } else { "" };
            drop(write!(std::io::stderr(), "\r\x1b[K{line}{end}"));
        } else {
            drop(writeln!(std::io::stderr(), "{line}"));
        }
    }
}

fn line(doing: &str, progress: Progress, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    match progress.rows_total {
        0 => format!("{doing}: {} rows, {seconds:.1} s", progress.rows),
        total => {
            let percent = u128::from(progress.rows) * 100 / u128::from(total);
            format!("{doing}: {} of {total} rows, {percent} %, {seconds:.1} s", progress.rows)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_many_of_how_many_where_that_is_known() {
        let progress = Progress { rows: 50, rows_total: 200 };
        let second = Duration::from_secs(1);
        assert_eq!(line("saving", progress, second), "saving: 50 of 200 rows, 25 %, 1.0 s");
        let progress = Progress { rows: 50, rows_total: 0 };
        assert_eq!(line("recovering", progress, second), "recovering: 50 rows, 1.0 s");
    }
}
