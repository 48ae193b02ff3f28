//! What the user asks for: keys on a screen, lines on stdin.

use std::io::BufRead;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

/// Requests that wait; a user who types faster waits with them.
const REQUESTS_MAX: usize = 16;
/// How often the keyboard's thread looks whether it is still needed.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// What may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Kill the leader.
    Kill,
    /// Start dead processes again.
    Restart,
    /// The terminal changed its size.
    Redraw,
    /// End everything.
    Quit,
}

/// A thread that reads, because neither terminals nor pipes can be waited for everywhere.
pub(super) struct Input {
    requests: mpsc::Receiver<Request>,
}

impl Input {
    /// Reads keys of a terminal in raw mode.
    pub(super) fn keys() -> Self {
        Self::on_thread(|send| {
            while !send.is_closed() {
                if !event::poll(POLL_INTERVAL).unwrap_or(false) {
                    continue;
                }
                let Ok(event) = event::read() else { return };
                if let Some(request) = of_event(&event)
                    && send.blocking_send(request).is_err()
                {
                    return;
                }
            }
        })
    }

    /// Reads lines: `k`, `r`, `q`. The end of input asks for nothing.
    pub(super) fn lines() -> Self {
        Self::on_thread(|send| {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if let Some(request) = of_line(&line)
                    && send.blocking_send(request).is_err()
                {
                    return;
                }
            }
        })
    }

    fn on_thread(read: impl FnOnce(mpsc::Sender<Request>) + Send + 'static) -> Self {
        let (send, requests) = mpsc::channel(REQUESTS_MAX);
        // It may wait in a read when the process ends, and ends with it.
        drop(std::thread::spawn(move || read(send)));
        Self { requests }
    }

    /// Waits for the next request. Cancel-safe.
    pub(super) async fn next(&mut self) -> Request {
        match self.requests.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }
}

fn of_line(line: &str) -> Option<Request> {
    match line.trim() {
        "k" => Some(Request::Kill),
        "r" => Some(Request::Restart),
        "q" => Some(Request::Quit),
        _ => None,
    }
}

fn of_event(event: &Event) -> Option<Request> {
    match event {
        Event::Resize(..) => Some(Request::Redraw),
        Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
            // Raw mode turns Ctrl-C from a signal into a key.
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                Some(Request::Quit)
            }
            KeyCode::Char('k') => Some(Request::Kill),
            KeyCode::Char('r') => Some(Request::Restart),
            KeyCode::Char('q') => Some(Request::Quit),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn keys_and_lines_ask_for_the_same() {
        let key = |code, modifiers| of_event(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('k'), KeyModifiers::NONE), of_line("k\n"));
        assert_eq!(key(KeyCode::Char('r'), KeyModifiers::NONE), of_line(" r "));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Request::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Request::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(of_line("kill"), None);
    }
}
